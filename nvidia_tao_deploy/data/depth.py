"""Images or stereo pairs with depth or disparity maps, listed in annotation files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.data.folder import common_root, relative_id
from nvidia_tao_deploy.data.masks import read_mask
from nvidia_tao_deploy.data.pfm import read_pfm
from nvidia_tao_deploy.data.sample import Listed, Sample
from nvidia_tao_deploy.data.text import read_lines, some
from nvidia_tao_deploy.errors import DataError

PNG_SCALE = 1000.0
MASK_VALID = 255
Kind = Literal["depth", "disparity"]


@dataclass(frozen=True)
class DepthTruth:
    """Where an image's map is, and what its numbers mean; read when it is needed.

    Attributes:
        path: PFM or PNG file.
        kind: depth, or disparity (inverse depth up to a factor).
        scale: PNG values are divided by this; None: 1000.
        mask: picture whose pixels other than 255 (white in one of 1 bit or a palette) have no truth, or None.
        crop: (top, bottom, left, right) of the part that counts, None for all; only for maps at least that large.
    """

    path: Path
    kind: Kind = "depth"
    scale: float | None = None
    mask: Path | None = None
    crop: tuple[int, int, int, int] | None = None

    def read(self) -> NDArray[np.float32]:
        """The map (H, W) float32; what has no truth is 0, infinite or NaN.

        Raises:
            DataError: a file is missing, broken or of another kind, or the mask is of another size.
        """
        values = read_map(self.path, self.scale)
        if self.mask is not None:
            mask = read_mask(self.mask, "colors")
            if mask.shape[:2] != values.shape:
                raise DataError(
                    f"the mask is {mask.shape[1]} x {mask.shape[0]}, its map {values.shape[1]} x {values.shape[0]}",
                    where=str(self.mask),
                )
            values = np.where(mask.reshape(*mask.shape[:2], -1)[..., 0] == MASK_VALID, values, np.float32(np.inf))
        if self.crop and values.shape[0] >= self.crop[1] and values.shape[1] >= self.crop[3]:
            top, bottom, left, right = self.crop
            inside = np.zeros(values.shape, bool)
            inside[top:bottom, left:right] = True
            values = np.where(inside, values, np.float32(0))
        return values


def read_map(path: Path, scale: float | None = None) -> NDArray[np.float32]:
    """A depth or disparity map (H, W) float32 by the file's suffix.

    ``.pfm``: as it is. ``.png``, 16 bits grey: value / scale. ``.png``, 8 bits RGB: (R * 65025 + G * 255 + B) / scale,
    0 becomes infinite. ``.png``, 8 bits grey: value / scale, which then must be given. The scale is 1000 if None.

    Raises:
        DataError: missing, broken, or none of these.
    """
    suffix = path.suffix.lower()
    if suffix == ".pfm":
        values = read_pfm(path)
        if values.ndim != 2:
            raise DataError("a PFM map with three channels is no depth", where=str(path), remedy="Write it as Pf.")
        return values
    if suffix != ".png":
        raise DataError(f"maps are .pfm or .png files, not {suffix or 'files without suffix'}", where=str(path))
    pixels, divisor = _png(path), np.float32(scale or PNG_SCALE)
    if pixels.ndim == 3:
        red, green, blue = (pixels[..., c].astype(np.float64) for c in range(3))
        coded = ((red * 65025 + green * 255 + blue) / float(divisor)).astype(np.float32)
        return np.asarray(np.where(coded == 0, np.float32(np.inf), coded), np.float32)
    if pixels.dtype == np.uint8 and scale is None:
        raise DataError(
            "a map with 8 bits grey has no established scale",
            where=str(path),
            remedy="Set gt_scale of its data source to what the values are divided by.",
        )
    return np.asarray(pixels.astype(np.float32) / divisor, np.float32)


def _png(path: Path) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """uint16 (H, W), uint8 (H, W) or uint8 (H, W, 3)."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            if image.mode in ("I;16", "I;16B", "I", "L"):
                values = np.asarray(image)
                return values if values.dtype == np.uint8 else values.astype(np.uint16)
            if image.mode in ("RGB", "RGBA"):
                return np.asarray(image)[..., :3]
            mode = image.mode
    except (OSError, SyntaxError, UnidentifiedImageError) as error:
        raise DataError(f"cannot read the map: {error}", where=str(path)) from error
    raise DataError(
        f"a map of mode {mode} has no established meaning", where=str(path), remedy="Write 16 bits grey or 8 bits RGB."
    )


@dataclass(frozen=True)
class AnnotationFile:
    """One annotation file and what holds for its lines.

    Attributes:
        path: lines of file names, see :class:`DepthList`.
        kind: what its maps hold.
        scale: of its PNG maps, see :func:`read_map`.
        crop: see :class:`DepthTruth`.
    """

    path: Path
    kind: Kind = "depth"
    scale: float | None = None
    crop: tuple[int, int, int, int] | None = None


class DepthList(Listed):
    """Samples of annotation files; targets are :class:`DepthTruth`.

    Names on a line are separated by white space; blank lines and lines that start with ``#`` are passed over. One
    name: an image. Two: image and map, or left and right image of a stereo set. Three: left, right, map. Four: and
    the mask of what both eyes see. Names are relative to the working directory, else to the annotation file.

    Args:
        sources: the annotation files; their samples follow each other.
        stereo: samples are pairs.
        with_truth: every sample must have a map.

    Raises:
        DataError: a file is missing, no sample, or left and right images or maps are not equal in number.
    """

    def __init__(self, sources: Sequence[AnnotationFile], *, stereo: bool, with_truth: bool) -> None:
        rows = [(source, number, names) for source in sources for number, names in _rows(source.path)]
        where = some(source.path for source in sources)
        if not rows:
            raise DataError("the annotation files name no image", where=where)
        parsed = [(source, number, _roles(names, stereo)) for source, number, names in rows]
        needed = {"right": stereo, "map": with_truth}
        for role, what in (("right", "right images"), ("map", "ground-truth maps")):
            lacking = [f"{source.path}:{number}" for source, number, roles in parsed if role not in roles]
            if needed[role] and lacking:
                raise DataError(
                    f"{len(parsed)} {'left ' * stereo}images and {len(parsed) - len(lacking)} {what}: "
                    f"none at {some(lacking)}",
                    where=where,
                    remedy="Every line needs "
                    + ("left, right" if stereo else "image")
                    + ", map" * with_truth
                    + (" (single images: dataset.dataset_name=MonoDataset)." if stereo else "."),
                )
        self.called = "pairs" if stereo else "images"
        samples: list[Sample] = []
        missing = []
        for source, number, roles in parsed:
            files = {role: _find(name, source.path.parent) for role, name in roles.items()}
            paths = (files["left"], files["right"]) if stereo else (files["left"],)
            truth = None
            if with_truth:
                missing += [str(files[role]) for role in ("map", "mask") if role in files and not files[role].is_file()]
                truth = DepthTruth(files["map"], source.kind, source.scale, files.get("mask"), source.crop)
            samples.append(Sample(f"{source.path.name}:{number}", paths, truth))
        if missing:
            raise DataError(f"ground-truth files are missing: {some(missing)}", where=where)
        super().__init__(samples, common_root([sample.path.parent for sample in samples]))
        taken: set[int | str] = set()
        for index, sample in enumerate(samples):
            name = relative_id(sample.path, self.root)
            self._samples[index] = Sample(f"{name}#{index}" if name in taken else name, sample.paths, sample.target)
            taken.add(name)


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    lines = enumerate(read_lines(path), 1)
    return [(number, line.split()) for number, line in lines if line.strip() and not line.lstrip().startswith("#")]


def _roles(names: Sequence[str], stereo: bool) -> dict[str, str]:
    """File names by role. What two names mean, only the kind of dataset can tell."""
    if len(names) == 2:
        return dict(zip(("left", "right" if stereo else "map"), names, strict=True))
    return dict(zip(("left", "right", "map", "mask"), names[:4], strict=False))


def _find(name: str, beside: Path) -> Path:
    here = Path(os.path.abspath(name))
    return here if here.exists() else Path(os.path.abspath(beside / name))
