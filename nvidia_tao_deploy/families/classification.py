"""Image classifiers and the backbones they stand on: class names, folders of classes, transforms, scores."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nvidia_tao_deploy.arrays import Array
from nvidia_tao_deploy.data.folder import ClassFolder, ImageFolder
from nvidia_tao_deploy.data.sample import Dataset
from nvidia_tao_deploy.data.text import counted, read_text, some
from nvidia_tao_deploy.errors import DataError, ModelError, SpecError
from nvidia_tao_deploy.families.images import calibration_images, image_network
from nvidia_tao_deploy.metrics.topk import TopKMetric
from nvidia_tao_deploy.network import Decoder, Network, Port, Ports, expect
from nvidia_tao_deploy.pipeline.progress import say
from nvidia_tao_deploy.predictions.table import ClassificationWriter
from nvidia_tao_deploy.predictions.types import Classification
from nvidia_tao_deploy.runtime.session import TensorInfo
from nvidia_tao_deploy.spec.sections import NetworkSpec
from nvidia_tao_deploy.transforms.image import Color, ImageTransform, Layout
from nvidia_tao_deploy.transforms.normalize import CAFFE_MEAN_BGR, CAFFE_MEAN_GREY, CAFFE_MEAN_GREY_16, IMAGENET_MEAN

LOOSE = 1e-2  # of a softmax in reduced precision


@dataclass(frozen=True)
class ClassNames:
    """Class names in index order, and who says so.

    Attributes:
        names: by index.
        source: file or folder that names them.
        remedy: what to do where they do not fit the model.
        guessed: taken from sub-folders, which need not be classes when nothing is evaluated.
    """

    names: Sequence[str]
    source: str
    remedy: str = "Give the class list of the training."
    guessed: bool = False

    def check_width(self, width: int | None) -> None:
        """Compare with the number of scores the model gives, None (dynamic) fits; ModelError where they differ."""
        if width is not None and width != len(self.names):
            raise ModelError(
                f"the model has {counted(width, 'classes')}, the data names {len(self.names)}: {some(self.names, 10)}",
                where=self.source,
                remedy=self.remedy,
            )

    def to_write(self, width: int | None) -> Sequence[str]:
        """The names a result table shows; none (indices are written) where guessed ones do not fit.

        Raises:
            ModelError: names that were given do not fit.
        """
        if not self.guessed:
            self.check_width(width)
        elif width is not None and width != len(self.names):
            say(f"note: the classes have no names, their indices are written. {self.remedy}")
            return ()
        return self.names


def folder_classes(folder: Path | str | None, remedy: str) -> ClassNames:
    """The sorted names of the sub-folders, hidden ones and plain files left out; none where there is no folder."""
    if not folder or not Path(folder).is_dir():
        return ClassNames((), str(folder or ""), remedy, guessed=True)
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    return ClassNames(names, str(folder), remedy, guessed=True)


def read_classmap(path: Path | str) -> ClassNames:
    """A JSON file ``{class name: index}``.

    Raises:
        DataError: missing, not JSON, or anything but indices 0 to n-1, each once.
    """
    content = read_json(path)
    if not isinstance(content, dict) or not content or not all(type(index) is int for index in content.values()):
        raise DataError(
            "not a class map", where=str(path), remedy='Write {"class name": index, ...} with indices from 0.'
        )
    if sorted(content.values()) != list(range(len(content))):
        raise DataError(
            f"class indices must be 0 to {len(content) - 1}, each once: {some(sorted(content.values()))}",
            where=str(path),
        )
    return ClassNames(sorted(content, key=content.__getitem__), str(path), "Give the class map of the training.")


def read_json(path: Path | str) -> Any:
    """The content of a JSON file; DataError where it is missing, not JSON, or a key stands twice in one block."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise DataError(f"a key stands twice among {some([key for key, _ in pairs])}", where=str(path))
        return found

    try:
        return json.loads(read_text(Path(path)), object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise DataError(f"not JSON: {error.msg}", where=f"{path}:{error.lineno}") from error


def known_classes(classmap: str | None, folder: Path | str | None, key: str) -> ClassNames:
    """The class map where one is given, else the sub-folders of ``folder``; ``key`` names the map's spec key."""
    return read_classmap(classmap) if classmap else folder_classes(folder, f"Set {key} to the training's class map.")


def labels(classmap: str | None, folder: Path | str | None) -> Sequence[str]:
    """Class names for a manifest: nothing may be there yet when an engine is built."""
    if classmap and not Path(classmap).is_file():
        return ()
    return known_classes(classmap, folder, "").names


def metric(data: Dataset, k: int) -> TopKMetric:
    """Top-k accuracy over the dataset's classes."""
    assert isinstance(data, ClassFolder)
    return TopKMetric(data.class_names, k=k)


def writer(folder: Path, classes: ClassNames, width: int | None) -> ClassificationWriter:
    """result.csv."""
    return ClassificationWriter(folder, classes.to_write(width))


def probabilities(scores: Array) -> list[Classification]:
    """Rows (n, C) that are probabilities already; ModelError where they cannot be."""
    if (scores < -LOOSE).any() or (scores > 1 + LOOSE).any():
        raise ModelError(
            f"the model's scores lie in {scores.min():.3g} to {scores.max():.3g}, probabilities are needed",
            remedy="Check that the file was exported for this network; classification_pyt takes logits.",
        )
    return [Classification(row) for row in scores.astype(np.float64)]


def softmax(logits: Array) -> list[Classification]:
    """exp(x) / sum(exp(x)) of each row (n, C), in float64, shifted by the row's maximum so that nothing overflows."""
    odds = logits.astype(np.float64)
    odds -= odds.max(axis=1, keepdims=True)
    np.exp(odds, out=odds)
    odds /= odds.sum(axis=1, keepdims=True)
    return [Classification(row) for row in odds]


def classifier(
    spec: type[NetworkSpec],
    *,
    output: str,
    images: Callable[[Any, str], str],
    classes: Callable[[Any, str], ClassNames],
    finish: Callable[[Array], list[Classification]],
    top_k: Callable[[Any], int],
    **more: Any,
) -> Network:
    """A classifier of images in one folder per class: top-k accuracy, result.csv.

    evaluate refuses a model with another number of classes, inference one where names were given.

    Args:
        spec: of the network.
        output: role of the scores.
        images: (spec, action) -> folder of images.
        classes: (spec, action) -> class names.
        finish: scores (n, C) -> predictions.
        top_k: spec -> k.
        more: as in :class:`Network`.
    """

    def dataset(spec: Any, action: str) -> Dataset:
        folder, names = images(spec, action), classes(spec, action).names
        return ClassFolder(folder, names, strict=spec.strict) if action == "evaluate" else ImageFolder(folder)

    def decode(spec: Any, ports: Ports, action: str) -> Decoder:
        if action == "evaluate":
            classes(spec, action).check_width(ports.outputs[output].shape[1])
        return lambda outputs, _geometries: finish(outputs[output])

    def made_writer(spec: Any, folder: Path, _data: Dataset, ports: Ports) -> ClassificationWriter:
        return writer(folder, classes(spec, "inference"), ports.outputs[output].shape[1])

    return image_network(
        spec=spec,
        dataset=dataset,
        decode=decode,
        metric=lambda spec, data: metric(data, top_k(spec)),
        writer=made_writer,
        **more,
    )


def backbone(spec: type[NetworkSpec], transform: Callable[[Any, Ports], ImageTransform]) -> Network:
    """A network of one image input and any outputs, of which there are engines only."""
    return Network(spec, partial(bind_image, role="input"), transform, calibration_images)


def bind_image(
    inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo], *, role: str, scores: Sequence[Port] = ()
) -> Ports:
    """One image input of either layout; the outputs by ``scores``, or all of them under their own names."""
    ports = expect((Port(role),), scores)(inputs, outputs)
    image_layout(ports, role)
    return ports if scores else Ports(ports.inputs, {tensor.name: tensor for tensor in outputs})


def image_layout(ports: Ports, role: str, preferred: Layout = "NCHW") -> tuple[Layout, int]:
    """(layout, channels) of an image input: the axis with 1 or 3 entries holds the channels, ``preferred`` if both do.

    Raises:
        ModelError: neither axis has 1 or 3 entries.
    """
    tensor = ports.inputs[role]
    axes: dict[Layout, int | None] = {"NCHW": tensor.shape[1], "NHWC": tensor.shape[3]}
    for layout in sorted(axes, key=lambda name: name != preferred):
        channels = axes[layout]
        if channels in (1, 3):
            return layout, channels
    raise ModelError(
        f"input {tensor} is no image with 1 or 3 channels", remedy="Check that the file was exported for this network."
    )


def mode_transform(
    spec: Any,
    ports: Ports,
    role: str,
    *,
    mode: Literal["tf", "torch", "caffe"],
    mean_bgr: Sequence[float] = (),
    mean_grey: Sequence[float] = (),
    depth: int = 8,
    bicubic: bool = False,
    center_crop: bool = False,
    layout: Layout = "NCHW",
) -> ImageTransform:
    """The TensorFlow trainers' transform: Pillow resize, then the arithmetic of a preprocessing mode.

    tf: x/127.5 - 1, RGB. torch: (x/255 - [0.485, 0.456, 0.406]) / 0.224, RGB; grey 0.449 and 0.224.
    caffe: BGR minus the mean; grey minus 117.3786. Depth 16 divides by 65535 instead of 255.

    Args:
        spec: chooses the image decoder.
        ports: the model's tensors.
        role: of the image input.
        mode: see above.
        mean_bgr: caffe mean of three channels; empty: 103.939, 116.779, 123.68.
        mean_grey: caffe mean of one channel; empty: 117.3786, at depth 16 30048.9216.
        depth: bits of a grey level, 8 or 16; 16 needs a model with one channel.
        bicubic: resize method, else bilinear.
        center_crop: resize over the input size by 32 pixels and cut the centre, else stretch.
        layout: where the model's shape leaves it open.

    Raises:
        ModelError: the input is no image of fixed size.
        SpecError: depth 16 with three channels.
    """
    layout, channels = image_layout(ports, role, layout)
    ports.image_size(role, layout)
    deep = depth == 16
    if deep and channels != 1:
        raise SpecError("16-bit images need a model with one channel", remedy="Set the image depth to 8.")
    full, grey = 65535.0 if deep else 255.0, channels == 1
    scale, mean, std = 1.0, mean_bgr or CAFFE_MEAN_BGR, (1.0,)
    if mode == "tf":
        scale, mean = 2.0 / full, (1.0,)
    elif mode == "torch":  # the trainers ignore a given mean here
        scale, mean, std = 1.0 / full, (0.449,) if grey else IMAGENET_MEAN, (0.224,)
    elif grey:
        mean = mean_grey or (CAFFE_MEAN_GREY_16 if deep else CAFFE_MEAN_GREY)
    color: Color = "I" if deep else "BGR" if mode == "caffe" else "RGB"
    return ImageTransform(
        resize=f"{'center_crop' if center_crop else 'stretch'}_{'bicubic' if bicubic else 'bilinear'}",
        scale=scale,
        mean=mean,
        std=std,
        color=color,
        layout=layout,
        input_name=ports.inputs[role].name,
        backend=spec.runtime.image_backend,
    )


def rgb_transform(
    spec: Any, ports: Ports, role: str, mean: Sequence[float], std: Sequence[float], resize: str = "stretch_bilinear"
) -> ImageTransform:
    """The PyTorch trainers' transform: Pillow bilinear stretch, (x/255 - mean) / std in RGB; any image size."""
    name, backend = ports.inputs[role].name, spec.runtime.image_backend
    return ImageTransform(resize=resize, scale=1 / 255, mean=mean, std=std, input_name=name, backend=backend)
