"""KITTI label folders: one text file per image, one object per line."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.data.folder import common_root, relative_id
from nvidia_tao_deploy.data.image import list_images
from nvidia_tao_deploy.data.sample import Listed, Sample
from nvidia_tao_deploy.data.text import counted, read_lines, some
from nvidia_tao_deploy.errors import DataError

_FIELDS_AFTER_NAME = 8  # at least: truncation, occlusion, angle, x1, y1, x2, y2 and one more


@dataclass(frozen=True)
class KittiTarget:
    """The objects of one image, in file order.

    Attributes:
        boxes_xyxy: (K, 4) float64, source pixels.
        class_ids: (K,) int64.
        difficult: (K,) bool: occluded objects, neutral in the metric.
    """

    boxes_xyxy: NDArray[np.float64]
    class_ids: NDArray[np.int64]
    difficult: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.class_ids)


@dataclass(frozen=True)
class KittiObject:
    """One label line: class name as written, box in source pixels, difficult where occlusion is not 0."""

    name: str
    box_xyxy: tuple[float, float, float, float]
    difficult: bool


class KittiDetection(Listed):
    """Image folders, each with its label folder; an image takes part if ``<stem>.txt`` exists.

    Labels are read once, here. Names are matched without regard to case: label name -> ``class_mapping`` ->
    ``class_names``. Labels of other classes are not the network's business and are left out; they, images without
    label file, and lines that cannot be read are counted and named in ``issues``.

    Args:
        image_dirs: folders of images, not searched recursively; one path alone is allowed.
        label_dirs: as many label folders, in the same order.
        class_names: the network's classes, in id order.
        class_mapping: label name -> class name; None: every class maps to itself.
        first_class_id: id of ``class_names[0]`` (0 or 1, see the network's contract).
        round_boxes: round box corners to integers, half to even (detectnet_v2).
        strict: raise for what would otherwise go into ``issues`` (not for labels of other classes).

    Raises:
        DataError: folders missing or not in pairs, no image has a label file, no line of them can be read, or no label
            names a class.
    """

    def __init__(
        self,
        image_dirs: Sequence[Path | str] | Path | str,
        label_dirs: Sequence[Path | str] | Path | str,
        class_names: Sequence[str],
        class_mapping: Mapping[str, str] | None = None,
        *,
        first_class_id: int = 0,
        round_boxes: bool = False,
        strict: bool = False,
    ) -> None:
        images = [image_dirs] if isinstance(image_dirs, (str, Path)) else list(image_dirs)
        labels = [label_dirs] if isinstance(label_dirs, (str, Path)) else list(label_dirs)
        if len(images) != len(labels) or not images:
            raise DataError(
                f"{len(images)} image folders and {counted(len(labels), 'label folders')} do not make pairs",
                remedy="Give one label folder for each image folder, in the same order.",
            )
        super().__init__((), common_root(images))
        self.class_names: list[str] = list(class_names)
        listed = [pair for folders in zip(images, labels, strict=True) for pair in self._pairs(*folders)]
        pairs = list(dict.fromkeys(listed))
        if len(pairs) < len(listed):
            self.issues.append(counted(len(listed) - len(pairs), "images are listed more than once, they count once"))
        if not pairs:
            raise DataError(
                f"none of the images in {some(images)} has a label file in {some(labels)}",
                remedy="The label file of picture.jpg is picture.txt in the paired label folder.",
            )
        objects = self._read_labels([label for _, label in pairs])
        if strict and self.issues:
            raise DataError("; ".join(self.issues), remedy="Mend the labels, or leave `strict` off.")
        self._class_ids = _class_lookup(self.class_names, class_mapping, first_class_id)
        if not self._class_ids:
            raise DataError(
                f"the class mapping leads to none of the network's classes: {some(self.class_names)}",
                remedy="Check target_class_mapping: label name -> class name.",
            )
        self._check_names(Counter(o.name for of_image in objects for o in of_image), some(labels))
        self._samples = [
            Sample(relative_id(image, self.root), (image,), _target(of_image, self._class_ids, round_boxes))
            for (image, _), of_image in zip(pairs, objects, strict=True)
        ]

    def _pairs(self, image_dir: Path | str, label_dir: Path | str) -> list[tuple[Path, Path]]:
        folder = Path(os.path.abspath(label_dir))
        if not folder.is_dir():
            raise DataError("no such label folder", where=str(label_dir), remedy="Check the path.")
        images = list_images(image_dir, recursive=False)
        stems = {entry.name[: -len(".txt")] for entry in os.scandir(folder) if entry.name.endswith(".txt")}
        bare = [image.name for image in images if image.stem not in stems]
        if bare:
            told = f"{counted(len(bare), 'images skipped, they have no label file')} in {label_dir}: {some(bare)}"
            self.issues.append(told)
        lone = sorted(stems - {image.stem for image in images})
        if lone:
            told = f"{counted(len(lone), 'label files skipped, they have no image')} in {image_dir}: {some(lone)}"
            self.issues.append(told)
        return [(image, folder / f"{image.stem}.txt") for image in images if image.stem in stems]

    def _read_labels(self, files: Sequence[Path]) -> list[list[KittiObject]]:
        """The objects of each file; lines that are none go into ``issues``."""
        of_files, refused = [], []
        for file in files:
            lines = ((number, line) for number, line in enumerate(read_lines(file), start=1) if line.strip())
            parsed = [(number, parse_label(line)) for number, line in lines]
            of_files.append([item for _, item in parsed if isinstance(item, KittiObject)])
            refused += [f"{file}:{number}: {reason}" for number, reason in parsed if isinstance(reason, str)]
        if refused and not any(of_files):
            raise DataError(
                f"not one label line can be read; the first: {refused[0]}",
                remedy="A line is: name truncation occlusion angle x1 y1 x2 y2 ..., with blanks between them.",
            )
        if refused:
            self.issues.append(f"{counted(len(refused), 'label lines skipped')}: {some(refused)}")
        return of_files

    def _check_names(self, names: Mapping[str, int], where: str) -> None:
        strangers = {name: count for name, count in sorted(names.items()) if name.lower() not in self._class_ids}
        if names and len(strangers) == len(names):
            raise DataError(
                f"no label names a class of the network: labels name {some(strangers, 20)}; "
                f"wanted {some(self._class_ids, 20)}",
                where=where,
                remedy="Check target_class_mapping: label name -> class name.",
            )
        if strangers:
            listed = some([f"{name} ({count})" for name, count in strangers.items()])
            left_out = counted(sum(strangers.values()), "labels left out, no class is mapped to them")
            self.issues.append(f"{left_out}: {listed}")
        if not names:
            self.issues.append(f"the label files hold no object: {where}")


def parse_label(line: str) -> KittiObject | str:
    """One label line, or what is wrong with it.

    Class names may hold blanks: the name ends where seven numbers start. Fields behind them may be anything.
    """
    fields = line.split()
    starts = range(1, len(fields) - _FIELDS_AFTER_NAME + 1)
    first = next((i for i in starts if all(map(_is_number, fields[i : i + 7]))), None)
    if first is None:
        return f"a name, 7 numbers and one more field are needed: {some(fields, 20)}"
    _, occlusion, _, x1, y1, x2, y2 = map(float, fields[first : first + 7])
    if not np.isfinite([occlusion, x1, y1, x2, y2]).all():
        return "a value is not finite"
    if x2 < x1 or y2 < y1:
        return f"the box is inverted: {x1:g} {y1:g} {x2:g} {y2:g}"
    return KittiObject(" ".join(fields[:first]), (x1, y1, x2, y2), int(occlusion) != 0)


def class_order(class_mapping: Mapping[str, str], *, keep_case: bool = False) -> list[str]:
    """The classes a network was trained on, in id order: the sorted distinct targets of the mapping.

    Args:
        class_mapping: label name -> class name.
        keep_case: sort as written (faster_rcnn); otherwise lower-cased, as the other trainers do.
    """
    return sorted({target if keep_case else target.lower() for target in class_mapping.values()})


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _class_lookup(
    class_names: Sequence[str], class_mapping: Mapping[str, str] | None, first_class_id: int
) -> dict[str, int]:
    """Lower-cased label name -> class id; mappings to classes the network does not have are left out."""
    ids = {name.lower(): i for i, name in enumerate(class_names, start=first_class_id)}
    mapping = class_mapping or {name: name for name in class_names}
    return {name.lower(): ids[target.lower()] for name, target in mapping.items() if target.lower() in ids}


def _target(objects: Sequence[KittiObject], class_ids: Mapping[str, int], round_boxes: bool) -> KittiTarget:
    mine = [o for o in objects if o.name.lower() in class_ids]
    boxes = np.array([o.box_xyxy for o in mine], dtype=np.float64).reshape(-1, 4)
    return KittiTarget(
        boxes_xyxy=np.rint(boxes) if round_boxes else boxes,
        class_ids=np.array([class_ids[o.name.lower()] for o in mine], dtype=np.int64),
        difficult=np.array([o.difficult for o in mine], dtype=bool),
    )
