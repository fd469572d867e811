"""segformer: semantic segmentation, raw logits (B, C, h, w) at a quarter of the image's size."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.cv.segformer.spec import PaletteEntry, Spec
from nvidia_tao_deploy.data.masks import IGNORE, ListedImages, MaskCodes, MaskPairs, paired
from nvidia_tao_deploy.data.sample import Dataset
from nvidia_tao_deploy.data.text import counted
from nvidia_tao_deploy.errors import ModelError, SpecError
from nvidia_tao_deploy.families.images import batch_size_or, image_network, image_transform
from nvidia_tao_deploy.families.segmentation import UNMAPPED, ClassMap, ListedClass, class_map
from nvidia_tao_deploy.metrics.segmentation import SemSegMetric
from nvidia_tao_deploy.network import Decoder, Port, Ports, expect
from nvidia_tao_deploy.predictions.drawing import Rgb
from nvidia_tao_deploy.predictions.masks import resized_logits
from nvidia_tao_deploy.predictions.segmentation import argmax_map
from nvidia_tao_deploy.predictions.segmentation_writer import SegmentationWriter, seeded_color
from nvidia_tao_deploy.predictions.types import LabelMap
from nvidia_tao_deploy.transforms.image import ImageTransform

PALETTE = "dataset.segment.palette"
FAINTEST = 32  # palettes darker than this hold mask values, not colours to look at


def classes(spec: Spec) -> ClassMap:
    """The classes by train id; SpecError where they contradict each other."""
    entries = [
        ListedClass(entry.seg_class, entry.label_id, entry.mapping_class, _rgb(entry))
        for entry in spec.dataset.segment.palette
    ]
    return class_map(entries, spec.where(PALETTE))


def _rgb(entry: PaletteEntry) -> Rgb:
    red, green, blue = entry.rgb
    return red, green, blue


def mask_codes(spec: Spec) -> MaskCodes:
    """Masks as training reads them: by the palette's rgb; grey masks by label id where the palette has true colours.

    With ``norm``, 255 counts as 1 in masks and palette alike.

    Raises:
        SpecError: two classes have one colour.
    """
    table, norm = classes(spec), spec.dataset.segment.label_transform == "norm"
    colors: dict[Rgb, int] = {}
    for entry, train_id in zip(spec.dataset.segment.palette, table.of_entry, strict=True):
        red, green, blue = _rgb(entry)
        color = (red // 255, green // 255, blue // 255) if norm and max(entry.rgb) > 1 else (red, green, blue)
        if colors.setdefault(color, train_id) != train_id:
            raise SpecError(
                f"class '{entry.seg_class}' has the colour of another class: {list(entry.rgb)}",
                where=spec.where(PALETTE),
                remedy="With label_transform norm only 0 and 255 differ: set it to None for more classes."
                if norm
                else "Give every class a colour of its own.",
            )
    chromatic = any(len(set(color)) > 1 for color in colors)
    grey = table.of_label if chromatic else {color[0]: train_id for color, train_id in colors.items()}
    first = spec.evaluate.unmapped_labels == "first_class"
    return MaskCodes(
        grey, colors, divisor=255 if norm else 1, unmapped=0 if first else IGNORE, expand_palette=chromatic
    )


def folder(spec: Spec, kind: str, split: str) -> Path:
    """``<root_dir>/<kind>/<split>``."""
    return Path(spec.require("dataset.segment.root_dir")) / kind / split


def dataset(spec: Spec, action: str) -> Dataset:
    """evaluate: images and masks of ``validation_split``; inference: images of ``predict_split``."""
    segment = spec.dataset.segment
    if action == "inference":
        return ListedImages([folder(spec, "images", segment.predict_split)])
    split = segment.validation_split
    pairs, issues = paired([(folder(spec, "images", split), folder(spec, "masks", split))], strict=spec.strict)
    return MaskPairs(pairs, mask_codes(spec), issues)


def transform(spec: Spec, ports: Ports) -> ImageTransform:
    """Pillow bilinear stretch, (x / 255 - mean) / std in RGB."""
    constants = spec.dataset.segment.augmentation.model_dump()
    return image_transform(spec, ports, "input", resize="stretch_bilinear", scale=1 / 255, **constants)


def decode(spec: Spec, ports: Ports, _action: str) -> Decoder:
    """Logits stretched bilinearly to the network's input size, as training does, then the best class."""
    names, channels = classes(spec).names, ports.outputs["output"].shape[1]
    if channels is not None and channels != len(names):
        raise ModelError(
            f"the model has {counted(channels, 'classes and the palette')} {len(names)}: {', '.join(names[:10])}",
            where=spec.where(PALETTE),
            remedy="List the classes of the training in dataset.segment.palette.",
        )

    return lambda outputs, geometries: [
        LabelMap(argmax_map(resized_logits(logits, geometry.network_size), len(logits)), geometry)
        for logits, geometry in zip(outputs["output"], geometries, strict=True)
    ]


def colors(spec: Spec) -> list[Rgb]:
    """The palette's colours by train id; fixed ones where the palette holds mask values too dark to tell apart."""
    listed = [color or (0, 0, 0) for color in classes(spec).colors]
    if np.max(listed) < FAINTEST:
        return [seeded_color(i) for i in range(len(listed))]
    return listed


NETWORK = image_network(
    spec=Spec,
    bind=expect(inputs=(Port("input", channels=(3,)),), outputs=(Port("output", floats=True),)),
    transform=transform,
    dataset=dataset,
    decode=decode,
    metric=lambda spec, _data: SemSegMetric(classes(spec).names, UNMAPPED[spec.evaluate.unmapped_labels]),
    writer=lambda spec, folder, data, _ports: SegmentationWriter(folder, colors(spec), data.root),
    batch_size=batch_size_or("dataset.segment.batch_size"),
    labels=lambda spec: classes(spec).names,
)
gen_trt_engine, evaluate, inference = verbs(NETWORK)
