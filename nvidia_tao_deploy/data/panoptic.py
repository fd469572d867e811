"""Panoptic data: a COCO panoptic json, images, and PNG files that hold a segment id per pixel."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.data.coco import load_document
from nvidia_tao_deploy.data.masks import IGNORE, Truth, read_mask
from nvidia_tao_deploy.data.sample import Listed, Sample
from nvidia_tao_deploy.data.text import counted, some
from nvidia_tao_deploy.errors import DataError


@dataclass(frozen=True)
class Category:
    """A category of the annotation file."""

    id: int
    name: str
    isthing: bool


@dataclass(frozen=True)
class Segments:
    """The segments of one image.

    Attributes:
        segment_ids: (h, w) int32, rows of the other arrays + 1; 0 is no segment.
        class_ids: (S,) int64 class indices; -1: the model has no such class.
        iscrowd: (S,) bool.
        unmapped: pixels of segments without a class, or that the json does not list, by name.
    """

    segment_ids: NDArray[np.int32]
    class_ids: NDArray[np.int64]
    iscrowd: NDArray[np.bool_]
    unmapped: Mapping[str, int]


@dataclass(frozen=True)
class PanopticFile:
    """A segment PNG as target: id = R + 256 G + 65536 B.

    Attributes:
        path: the PNG.
        segments: rows of (segment id, category id, iscrowd).
        class_of: category id -> class index; categories that are not in it have none.
    """

    path: Path
    segments: tuple[tuple[int, int, bool], ...]
    class_of: Mapping[int, int]

    def load_segments(self, size: tuple[int, int]) -> Segments:
        """The segments of an image of ``size`` (width, height).

        Raises:
            DataError: the PNG cannot be read, is of another size, or has no colours.
        """
        pixels = read_mask(self.path, "colors")
        if pixels.ndim == 2:
            pixels = np.repeat(pixels[..., None], 3, axis=2) if not pixels.any() else pixels
        if pixels.ndim != 3:
            raise DataError("a segment PNG holds its ids in three channels, this one is grey", where=str(self.path))
        if pixels.shape[1::-1] != size:
            raise DataError(
                f"the segment PNG has {pixels.shape[1]} x {pixels.shape[0]} pixels, its image {size[0]} x {size[1]}",
                where=str(self.path),
                remedy="Image and PNG must be of one size; check that they belong together.",
            )
        wide = pixels.astype(np.int32)
        ids = wide[..., 0] + 256 * wide[..., 1] + 65536 * wide[..., 2]
        found, inverse, counts = np.unique(ids, return_inverse=True, return_counts=True)
        rows = {segment: row for row, (segment, _, _) in enumerate(self.segments, start=1)}
        unmapped = {
            f"segment {segment}": count
            for segment, count in zip(found.tolist(), counts.tolist(), strict=True)
            if segment and segment not in rows
        }
        class_ids = np.array([self.class_of.get(category, -1) for _, category, _ in self.segments], np.int64)
        areas = dict(zip(found.tolist(), counts.tolist(), strict=True))
        for (segment, category, crowd), class_id in zip(self.segments, class_ids.tolist(), strict=True):
            if class_id < 0 and not crowd:
                name = f"category {category}"
                unmapped[name] = unmapped.get(name, 0) + areas.get(segment, 0)
        row_of = np.array([rows.get(segment, 0) for segment in found.tolist()], np.int32)
        return Segments(
            row_of[inverse].reshape(ids.shape),
            class_ids,
            np.array([crowd for _, _, crowd in self.segments], bool),
            unmapped,
        )

    def load(self, size: tuple[int, int]) -> Truth:
        """The class of every pixel; crowds and what has no class do not count."""
        segments = self.load_segments(size)
        classes = np.where(segments.iscrowd | (segments.class_ids < 0), IGNORE, segments.class_ids)
        table = np.concatenate([[IGNORE], classes]).astype(np.uint16)
        return Truth(table[segments.segment_ids], segments.unmapped)


class CocoPanoptic(Listed):
    """Samples in the order of the json's annotations; targets are :class:`PanopticFile`.

    Images missing on disk are skipped and told in ``issues``.

    Args:
        json_file: images, annotations and categories.
        image_dir: folder of the images.
        png_dir: folder of the segment PNGs.
        contiguous: class index is the category's place in the file, else its id less ``first_id``.
        first_id: the category id of class 0, unless ``contiguous``.
        classes: classes of the model; categories beyond have no class.
        strict: raise for images missing on disk.

    Raises:
        DataError: the json is malformed or points nowhere, a PNG is missing, or no image is there.
    """

    def __init__(
        self,
        json_file: Path | str,
        image_dir: Path | str,
        png_dir: Path | str,
        *,
        contiguous: bool,
        first_id: int,
        classes: int,
        strict: bool = False,
    ) -> None:
        root, self.json_file = Path(os.path.abspath(image_dir)), Path(json_file)
        super().__init__((), root)
        document = load_document(self.json_file, "panoptic")
        where = str(json_file)
        try:
            self.categories = [
                Category(int(row["id"]), str(row.get("name", row["id"])), bool(row.get("isthing", 1)))
                for row in document["categories"]
            ]
            names = {row["id"]: str(row["file_name"]) for row in document["images"]}
            listed = [
                (
                    row["image_id"],
                    names[row["image_id"]],
                    str(row["file_name"]),
                    tuple(
                        (int(item["id"]), int(item["category_id"]), bool(item.get("iscrowd", 0)))
                        for item in row["segments_info"]
                    ),
                )
                for row in document["annotations"]
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"not a COCO panoptic file: {type(error).__name__} {error}",
                where=where,
                remedy="It holds images, annotations with segments_info, and categories.",
            ) from error
        self.class_of = class_indices(self.categories, contiguous=contiguous, first_id=first_id, classes=classes)
        if not self.class_of:
            raise DataError("no category of the file is a class of the model", where=where)
        pngs = Path(os.path.abspath(png_dir))
        missing = []
        for image_id, name, png, segments in listed:
            path = root / name
            if path.is_file():
                target = PanopticFile(pngs / png, segments, self.class_of)
                self._samples.append(Sample(image_id, (path,), target))
            else:
                missing.append(name)
        lost = [str(path) for path in (sample.target.path for sample in self._samples) if not path.is_file()]
        if lost:
            raise DataError(f"{counted(len(lost), 'segment PNGs do not exist')}: {some(lost)}", where=where)
        if missing and (strict or not self._samples):
            raise DataError(f"not below {image_dir}: {counted(len(missing), 'images')}: {some(missing)}", where=where)
        if missing:
            self.issues.append(f"{len(missing)} of {len(listed)} images are not on disk: {some(missing)} (skipped)")
        if not self._samples:
            raise DataError("the annotation file lists no image", where=where)


def class_indices(categories: list[Category], *, contiguous: bool, first_id: int, classes: int) -> dict[int, int]:
    """Category id -> class index: the place in the list, or the id less ``first_id``; 0 to ``classes`` - 1."""
    pairs = (
        (category.id, place if contiguous else category.id - first_id) for place, category in enumerate(categories)
    )
    return {category: index for category, index in pairs if 0 <= index < classes}
