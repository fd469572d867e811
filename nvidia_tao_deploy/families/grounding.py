"""Prompted detectors on COCO data: grounding_dino, mask_grounding_dino."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

from nvidia_tao_deploy.arrays import Array
from nvidia_tao_deploy.data.coco import CocoDetection
from nvidia_tao_deploy.data.folder import ImageFolder
from nvidia_tao_deploy.data.sample import Dataset, Listed
from nvidia_tao_deploy.data.text import some
from nvidia_tao_deploy.errors import ModelError, SpecError
from nvidia_tao_deploy.families import coco_detection as family
from nvidia_tao_deploy.families.images import calibration_images, image_network
from nvidia_tao_deploy.network import Decoder, Port, Ports, expect
from nvidia_tao_deploy.pipeline.progress import say
from nvidia_tao_deploy.predictions.detection_writer import DetectionWriter
from nvidia_tao_deploy.predictions.detr import best_pairs, checked_outputs, class_scores
from nvidia_tao_deploy.predictions.types import Detections
from nvidia_tao_deploy.transforms.prompt import TEXT_INPUTS, PromptEncoder, PromptGeometry, PromptTransform
from nvidia_tao_deploy.transforms.tokenizer import load_tokenizer
from nvidia_tao_deploy.transforms.transform import Geometry

INPUTS = (family.IMAGE, *(Port(name, rank=3 if name == "text_token_mask" else 2) for name in TEXT_INPUTS))

bind = expect(inputs=INPUTS, outputs=(family.LOGITS, family.BOXES))


class Prompted(Listed):
    """A dataset whose samples carry what to look for in ``meta["prompt"]``: one prompt for all, or each in turn."""

    def __init__(self, data: Dataset, prompts: Sequence[tuple[str, ...] | str]) -> None:
        self.data = data
        samples = zip((data[i] for i in range(len(data))), cycle(prompts), strict=False)
        asked = (replace(sample, meta={**sample.meta, "prompt": prompt}) for sample, prompt in samples)
        super().__init__(asked, data.root, getattr(data, "issues", ()))


def captions(spec: Any) -> tuple[str, ...]:
    """``dataset.infer_data_sources.captions``: names as written, without the blanks around them.

    Raises:
        SpecError: there are none.
    """
    return tuple(name.strip() for name in spec.require("dataset.infer_data_sources.captions"))


def categories(data: CocoDetection) -> tuple[tuple[str, ...], list[int]]:
    """Names and ids of the categories in the order of the annotation file, which is that of the caption."""
    rows = data.raw["categories"]
    return tuple(str(row["name"]) for row in rows), [row["id"] for row in rows]


def told(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names, after saying which of them the network will read as several."""
    split = [name for name in names if "." in name or "?" in name]
    if split:
        say(f"note: '.' and '?' end a phrase, so these class names are read as several: {some(split)}")
    return names


def dataset(spec: Any, action: str) -> Dataset:
    """evaluate: ``dataset.test_data_sources``, its categories are the prompt; inference: folders and ``captions``."""
    if action == "evaluate":
        data = family.annotated(spec)
        return Prompted(data, [told(categories(data)[0])])
    names = told(captions(spec))
    return Prompted(ImageFolder(spec.require("dataset.infer_data_sources.image_dir")), [names])


def calibration(spec: Any) -> Dataset:
    """The calibration images, asked for ``captions`` or, without them, for the categories of the test data."""
    images = calibration_images(spec)
    if spec.dataset.infer_data_sources.captions:
        return Prompted(images, [captions(spec)])
    if spec.dataset.test_data_sources.json_file:
        return Prompted(images, [told(categories(family.annotated(spec))[0])])
    raise SpecError(
        "calibration images need something to look for",
        where=spec.where("dataset.infer_data_sources.captions"),
        remedy="Set dataset.infer_data_sources.captions, or dataset.test_data_sources.",
    )


def transform(spec: Any, ports: Ports) -> PromptTransform:
    """The normalized image and the tokens of the sample's prompt."""
    length, given, key = ports.inputs["input_ids"].shape[1], spec.model.max_text_len, "model.max_text_len"
    if length is None or set(ports.inputs["text_token_mask"].shape[1:]) != {length}:
        raise ModelError(
            f"text inputs {ports.inputs['input_ids']} and {ports.inputs['text_token_mask']} have no one fixed length",
            remedy=f"Export the model with a fixed text length, {given} as {key} says.",
        )
    if "max_text_len" in spec.model.model_fields_set and given != length:
        raise SpecError(
            f"the model takes {length} tokens, {key} says {given}",
            where=spec.where(key),
            remedy="Give the length of the export, or leave the key out.",
        )
    source, where = spec.model.text_encoder_type, spec.where("model.text_encoder_type")
    return PromptTransform(
        family.transform(spec, ports),
        {role: ports.inputs[role].name for role in TEXT_INPUTS},
        lambda: PromptEncoder(load_tokenizer(source, where), length),
        {"tokenizer": source, "tokens": length},
    )


def check_text_length(ports: Ports) -> None:
    """The logits have one column per token; ModelError where they do not."""
    tokens, columns = ports.inputs["input_ids"].shape[1], ports.outputs["pred_logits"].shape[2]
    if None not in (tokens, columns) and tokens != columns:
        raise ModelError(
            f"the model takes {tokens} tokens and scores {columns}: 'pred_logits' needs one column per token",
            remedy="Check that the file was exported for this network.",
        )


def decode(spec: Any, ports: Ports, _action: str) -> Decoder:
    """The best ``model.num_select`` (query, class) pairs of each image; a class scores the mean of its tokens."""
    check_text_length(ports)

    def run(outputs: Mapping[str, Array], geometries: Sequence[Geometry]) -> list[Detections]:
        probabilities, corners = checked_outputs(outputs["pred_logits"], outputs["pred_boxes"], len(geometries))
        found = []
        for tokens, xyxy, geometry in zip(probabilities, corners, geometries, strict=True):
            assert isinstance(geometry, PromptGeometry)
            scores = class_scores(tokens, geometry.prompt.spans)
            found.append(best_pairs(scores, xyxy, geometry, spec.model.num_select)[1])
        return found

    return run


def metric(spec: Any, data: Dataset) -> family.MatchedCocoMetric:
    """COCO mAP; class j is the j-th category of the annotation file, whatever its id."""
    return family.metric(spec, *truth(data))


def truth(data: Dataset) -> tuple[CocoDetection, list[int]]:
    """The annotated images behind the prompts of evaluate, and the category id of each class."""
    assert isinstance(data, Prompted)
    assert isinstance(data.data, CocoDetection)
    return data.data, categories(data.data)[1]


def writer(spec: Any, folder: Path, data: Dataset, _ports: Ports) -> DetectionWriter:
    """Labels and pictures; class j is the j-th caption."""
    return family.writer(spec, folder, data, captions(spec), tag_above=True)


def labels(spec: Any) -> list[str]:
    """The captions, for the manifest."""
    return list(spec.dataset.infer_data_sources.captions)


grounding_network = partial(
    image_network,
    bind=bind,
    dataset=dataset,
    calibration=calibration,
    transform=transform,
    decode=decode,
    metric=metric,
    writer=writer,
    labels=labels,
)
"""A :class:`Network` of this family: it needs a spec, and replaces what it has otherwise."""
