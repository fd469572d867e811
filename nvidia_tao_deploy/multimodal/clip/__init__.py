"""clip: images and texts as vectors of one space; retrieval both ways, and classification by texts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.data.captions import Captioned, Joined, text_samples
from nvidia_tao_deploy.data.folder import ClassFolder, ImageFolder
from nvidia_tao_deploy.data.image import SUFFIXES
from nvidia_tao_deploy.data.sample import Dataset, Listed
from nvidia_tao_deploy.errors import DataError, SpecError
from nvidia_tao_deploy.families import image_text as family
from nvidia_tao_deploy.families.images import calibration_images
from nvidia_tao_deploy.multimodal.clip.scores import ImageTextMetric
from nvidia_tao_deploy.multimodal.clip.spec import Captions, Spec
from nvidia_tao_deploy.network import Decoder, Port, Ports
from nvidia_tao_deploy.predictions.embeddings import EmbeddingWriter
from nvidia_tao_deploy.transforms.image import ImageTransform
from nvidia_tao_deploy.transforms.towers import TowerTransform

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
INFERENCE_SUFFIXES = SUFFIXES | {".gif", ".webp"}


def folders(spec: Spec, key: str) -> list[tuple[str, Captions]]:
    """The datasets under a key, each with its folder; SpecError where there are none, or one has no folder."""
    found = []
    for index, source in enumerate(spec.require(key)):
        if not source.image_dir:
            raise SpecError(f"dataset {index + 1} has no image_dir", where=spec.where(f"{key}[{index}]"))
        found.append((source.image_dir, source))
    return found


def dataset(spec: Spec, action: str) -> Joined:
    """evaluate: image-caption pairs, then class texts and the images of class folders; inference: images, texts."""
    parts: list[Dataset] = []
    if action == "evaluate":
        if spec.dataset.val.datasets or not spec.evaluate.zero_shot.images_dir:
            parts += (
                Captioned(folder, source.caption_dir, source.caption_file_suffix, source.image_list_file)
                for folder, source in folders(spec, "dataset.val.datasets")
            )
        if spec.evaluate.zero_shot.images_dir:
            images = ClassFolder(spec.evaluate.zero_shot.images_dir, strict=spec.strict)
            parts += [
                Listed(
                    sample
                    for index, name in enumerate(class_texts(spec, images))
                    for sample in text_samples(
                        [template.replace("{}", name) for template in spec.evaluate.zero_shot.templates],
                        Path(spec.evaluate.zero_shot.images_dir, images.class_names[index]),
                        **{"class": index, "reference": True},
                    )
                ),
                images,
            ]
        return Joined(parts)
    if spec.inference.datasets:
        named = [folder for folder, _ in folders(spec, "inference.datasets")]
        parts.append(ImageFolder(named, suffixes=INFERENCE_SUFFIXES))
    return family.with_texts(spec, parts, "Set inference.datasets, inference.text_file, or both.")


def class_texts(spec: Spec, images: ClassFolder) -> list[str]:
    """The words for each class folder; SpecError where ``class_names`` names a folder that is not there."""
    given = spec.evaluate.zero_shot.class_names
    strangers = set(given) - set(images.class_names)
    if strangers:
        raise SpecError(
            f"there is no class folder {', '.join(sorted(strangers))}; there are {', '.join(images.class_names)}",
            where=spec.where("evaluate.zero_shot.class_names"),
        )
    return [given.get(folder, folder.replace("_", " ")) for folder in images.class_names]


sides = family.sides_of(lambda spec: spec.inference.datasets)


def calibration(spec: Spec) -> Dataset:
    """The images below ``cal_image_dir``, with the captions beside them where there are any.

    Raises:
        SpecError: the model's type is not known.
    """
    family.refuse_unknown(spec, Path(spec.gen_trt_engine.onnx_file or ""))
    images = calibration_images(spec)
    try:
        data: Dataset = Joined(
            [Captioned(each, recursive=True) for each in spec.gen_trt_engine.tensorrt.calibration.cal_image_dir]
        )
    except DataError:  # none has a caption: a vision tower needs none
        data = images
    return Listed((replace(data[i], meta={**data[i].meta, "whole": True}) for i in range(len(data))), data.root)


def transform(spec: Spec, ports: Ports) -> TowerTransform:
    """siglip: stretched, mean and deviation 0.5; every other type: shortest edge, centre crop, CLIP's constants.

    Raises:
        ModelError: an input has no fixed size.
    """
    kind, canonicalize = family.trained_as(spec, ports.source) or (spec.model.type.lower(), False)
    visual = None
    if "image" in ports.inputs:
        ports.image_size("image")
        siglip = kind.startswith("siglip")
        visual = ImageTransform(
            resize="stretch_bilinear" if siglip else "shortest_edge_crop",
            scale=1 / 255,
            mean=(0.5,) if siglip else CLIP_MEAN,
            std=(0.5,) if siglip else CLIP_STD,
            input_name=ports.inputs["image"].name,
            backend=spec.runtime.image_backend,
        )
    return family.transform(spec, ports, visual, canonicalize)


def decode(spec: Spec, ports: Ports, action: str) -> Decoder:
    """Both embeddings at length 1.

    Raises:
        ModelError: the action needs a tower that is not there.
        SpecError: images are to be read, and the model's type is not known.
    """
    if family.VISUAL in sides(spec, action):
        family.refuse_unknown(spec, ports.source)
    return family.decoder(sides)(spec, ports, action)


def metric(spec: Spec, _data: Dataset) -> ImageTextMetric:
    """Retrieval both ways over the pairs, accuracy over the class folders."""
    folder = spec.evaluate.zero_shot.images_dir
    return ImageTextMetric(class_texts(spec, ClassFolder(folder)) if folder else ())


NETWORK = family.towers(
    Spec,
    visual=Port("image", channels=(3,)),
    sides=sides,
    calibration=calibration,
    transform=transform,
    dataset=dataset,
    decode=decode,
    metric=metric,
    writer=lambda spec, folder, _data, _ports: EmbeddingWriter(folder, "image", "image_paths", spec.inference.top_k),
)
gen_trt_engine, evaluate, inference = verbs(NETWORK)
