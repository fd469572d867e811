"""LPRNet: license plates, read by CTC whose blank is the last class."""

from __future__ import annotations

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.cv.lprnet.spec import Spec
from nvidia_tao_deploy.data.folder import ImageFolder
from nvidia_tao_deploy.data.sample import Dataset
from nvidia_tao_deploy.data.text_labels import TextLabels, read_characters
from nvidia_tao_deploy.errors import SpecError
from nvidia_tao_deploy.families import text_recognition as family
from nvidia_tao_deploy.families.images import batch_size_or
from nvidia_tao_deploy.network import Decoder, Port, Ports
from nvidia_tao_deploy.predictions.text import decode_ctc
from nvidia_tao_deploy.transforms.upright import UprightTransform

CHARACTERS = "dataset_config.characters_list_file"
SOURCES = "dataset_config.validation_data_sources"


def folders(spec: Spec, name: str) -> list[str]:
    """One folder of every validation source; SpecError where there is no source, or one without this folder."""
    found = [getattr(source, name) for source in spec.require(SOURCES)]
    if not all(found):
        index = found.index("")
        raise SpecError(f"validation source {index + 1} has no {name}", where=spec.where(f"{SOURCES}[{index}]"))
    return found


def dataset(spec: Spec, action: str) -> Dataset:
    """evaluate: plates with labels; inference: the images of ``image_dir``, else of the validation sources."""
    if action == "inference":
        return ImageFolder(spec.inference.image_dir or folders(spec, "image_directory_path"), recursive=False)
    pairs = zip(folders(spec, "image_directory_path"), folders(spec, "label_directory_path"), strict=True)
    return TextLabels.from_folders(list(pairs), read_characters(spec.require(CHARACTERS)), strict=spec.strict)


def transform(spec: Spec, ports: Ports) -> UprightTransform:
    """BGR (or grey) / 255, stretched in whole grey levels."""
    return UprightTransform(
        whole_levels=True,
        scale=1 / 255,
        color="BGR",
        input_name=ports.inputs["image_input"].name,
        backend=spec.runtime.image_backend,
    )


def decode(spec: Spec, _ports: Ports, _action: str) -> Decoder:
    """CTC; the blank stands after the listed characters."""
    path = spec.require(CHARACTERS)
    classes = [*read_characters(path), ""]
    return lambda outputs, _geometries: decode_ctc(
        outputs["ids"], outputs["probabilities"], classes, len(classes) - 1, path
    )


NETWORK = family.recogniser(
    "lprnet",
    Port("image_input", ("image_input:0",), channels=(1, 3)),
    with_confidence=False,
    spec=Spec,
    transform=transform,
    dataset=dataset,
    decode=decode,
    batch_size=batch_size_or("eval_config.batch_size"),
    labels=lambda spec: family.characters(spec.dataset_config.characters_list_file),
)
gen_trt_engine, evaluate, inference = verbs(NETWORK)
