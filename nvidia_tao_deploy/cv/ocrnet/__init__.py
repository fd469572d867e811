"""OCRNet: words, read by CTC (blank first) or by attention (start and end token first)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.arrays import Array
from nvidia_tao_deploy.cv.ocrnet.spec import Spec
from nvidia_tao_deploy.data.folder import ImageFolder
from nvidia_tao_deploy.data.sample import Dataset
from nvidia_tao_deploy.data.text_labels import TextLabels, read_characters
from nvidia_tao_deploy.families import text_recognition as family
from nvidia_tao_deploy.families.images import check_size, image_transform
from nvidia_tao_deploy.network import Decoder, Port, Ports
from nvidia_tao_deploy.pipeline.progress import say
from nvidia_tao_deploy.predictions.text import Text, decode_attention, decode_ctc
from nvidia_tao_deploy.transforms.image import ImageTransform
from nvidia_tao_deploy.transforms.transform import Geometry

CHARACTERS = "dataset.character_list_file"


def dataset(spec: Spec, action: str) -> Dataset:
    """evaluate: the lines of the list; inference: the images of the folders."""
    if action == "inference":
        return ImageFolder(spec.require("inference.inference_dataset_dir"), recursive=False)
    return TextLabels.from_list(
        spec.require("evaluate.test_dataset_dir"),
        spec.require("evaluate.test_dataset_gt_file"),
        read_characters(spec.require(CHARACTERS)),
        strict=spec.strict,
    )


def transform(spec: Spec, ports: Ports) -> ImageTransform:
    """Grey (or RGB), Pillow bicubic, (x / 255 - 0.5) / 0.5."""
    resize = "height_then_pad" if spec.dataset.augmentation.keep_aspect_ratio else "stretch_bicubic"
    return image_transform(spec, ports, "input", resize=resize, scale=1 / 255, mean=(0.5,), std=(0.5,))


def decode(spec: Spec, ports: Ports, action: str) -> Decoder:
    """CTC or attention, as ``model.prediction`` says; SpecError where the spec sets another size than the model's."""
    check_size(spec, ports, "input", f"{action}.input_width", f"{action}.input_height")
    path = spec.require(CHARACTERS)
    characters, attention = read_characters(path), spec.model.prediction == "Attn"
    reader, classes, mark = (decode_attention, ["[GO]", "[s]"], 1) if attention else (decode_ctc, [""], 0)
    classes += characters
    hinted = False

    def run(outputs: Mapping[str, Array], _geometries: Sequence[Geometry]) -> list[Text]:
        nonlocal hinted
        ids = outputs["ids"]
        if not hinted and _other_kind(ids, attention=attention):
            hinted = True
            say(f"note: most ids look like {'CTC' if attention else 'attention (Attn)'}: check model.prediction")
        return reader(ids, outputs["probabilities"], classes, mark, path)

    return run


def _other_kind(ids: Array, *, attention: bool) -> bool:
    """Whether class 0 stands where a [GO] (``attention``) does not, or lacks where a CTC blank does, in most texts."""
    if attention:
        strange = (np.logical_and.accumulate(ids != 1, axis=1) & (ids == 0)).any(axis=1)
    else:
        strange = (ids != 0).all(axis=1)
    return bool(2 * strange.sum() > len(ids))


NETWORK = family.recogniser(
    "ocrnet",
    Port("input", channels=(1, 3)),
    with_confidence=True,
    spec=Spec,
    transform=transform,
    dataset=dataset,
    decode=decode,
    labels=lambda spec: family.characters(spec.dataset.character_list_file),
)
gen_trt_engine, evaluate, inference = verbs(NETWORK)
