"""OCRNet: words, read by CTC (blank first) or by attention (start and end token first)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.cv.ocrnet.spec import Spec
from nvidia_tao_deploy.data.folder import ImageFolder
from nvidia_tao_deploy.data.sample import Dataset
from nvidia_tao_deploy.data.text_labels import TextLabels, read_characters
from nvidia_tao_deploy.families import text_recognition as family
from nvidia_tao_deploy.families.images import batch_size, calibration_images, check_size, image_transform
from nvidia_tao_deploy.network import Decoder, Network, Port, Ports
from nvidia_tao_deploy.predictions.text import Text, decode_attention, decode_ctc
from nvidia_tao_deploy.predictions.text_writer import TextWriter
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
    """CTC or attention, as ``model.prediction`` says.

    Raises:
        SpecError: the spec sets another size than the model's.
    """
    check_size(spec, ports, "input", f"{action}.input_width", f"{action}.input_height")
    path = spec.require(CHARACTERS)
    characters, attention = read_characters(path), spec.model.prediction == "Attn"
    classes = ["[GO]", "[s]", *characters] if attention else ["", *characters]

    def run(outputs: Mapping[str, NDArray[Any]], _geometries: Sequence[Geometry]) -> list[Text]:
        found = outputs["ids"], outputs["probabilities"]
        if attention:
            return decode_attention(*found, classes, stop=1, where=path)
        return decode_ctc(*found, classes, blank=0, where=path)

    return run


def labels(spec: Spec) -> Sequence[str]:
    """The characters for the manifest, where they are known."""
    path = spec.dataset.character_list_file
    return read_characters(path) if path and Path(path).is_file() else ()


NETWORK = Network(
    name="ocrnet",
    spec=Spec,
    bind=family.binder(Port("input", channels=(1, 3)), ("output_id",), ("output_prob",)),
    calibration=calibration_images,
    transform=transform,
    dataset=dataset,
    decode=decode,
    metric=lambda _spec, data: family.metric(data),
    writer=lambda _spec, folder, _data, _ports: TextWriter(folder, with_confidence=True),
    batch_size=batch_size,
    labels=labels,
)
gen_trt_engine, evaluate, inference = verbs(NETWORK)
