"""OCRNet: words, read by CTC (blank first) or by attention (start and end token first)."""

from __future__ import annotations

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.cv.ocrnet.spec import Spec
from nvidia_tao_deploy.data.folder import ImageFolder
from nvidia_tao_deploy.data.sample import Dataset
from nvidia_tao_deploy.data.text_labels import TextLabels, read_characters
from nvidia_tao_deploy.families import text_recognition as family
from nvidia_tao_deploy.families.images import batch_size, calibration_images, check_size, image_transform
from nvidia_tao_deploy.network import Decoder, Network, Port, Ports
from nvidia_tao_deploy.predictions.text import decode_attention, decode_ctc
from nvidia_tao_deploy.predictions.text_writer import TextWriter
from nvidia_tao_deploy.transforms.image import ImageTransform

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
    return lambda outputs, _geometries: reader(outputs["ids"], outputs["probabilities"], classes, mark, path)


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
    labels=lambda spec: family.characters(spec.dataset.character_list_file),
)
gen_trt_engine, evaluate, inference = verbs(NETWORK)
