"""Writes the sample data sets: ``python -m samples.data --out demo/data``.

Needs numpy, Pillow and scikit-learn (which carries the digits), no network. Every image is drawn from its own seed, so
the same image comes out whatever the counts are.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from PIL import Image

from samples.render import CLASSES, TASKS, Box, digits, draw_digit_and_decoy, draw_scene, image_rng, split_indices


def write_digits(out: Path, *, test: int = 360, calibration: int = 100) -> Path:
    """Write ``out/digits``: ``classes.txt`` (zero to nine, in the network's order) and ``<split>/<class>/*.png``.

    For networks with several tasks: ``<split>.csv`` (file, digit, ink of the decoy) and ``class_mapping.json``.
    Counts beyond the digits there are (360 test, 120 calibration) are cut. Returns the folder.
    """
    values = digits()[1]
    with fresh_folder(Path(out) / "digits") as folder:
        (folder / "classes.txt").write_text("".join(f"{name}\n" for name in CLASSES))
        mapping = {task: {str(i): name for i, name in enumerate(names)} for task, names in TASKS.items()}
        (folder / "class_mapping.json").write_text(json.dumps({"tasks": list(TASKS), "class_mapping": mapping}) + "\n")
        for split, count in (("test", test), ("calibration", calibration)):
            lines = ["file,digit,decoy"]
            for number, index in enumerate(split_indices(split)[:count]):
                name = f"{split}/{CLASSES[values[index]]}/digit_{index:04d}.png"
                pixels, decoy = draw_digit_and_decoy(image_rng("digits", split, number), int(index))
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(folder / name)
                lines.append(f"{name},{CLASSES[values[index]]},{decoy}")
            (folder / f"{split}.csv").write_text("\n".join(lines) + "\n")
    return Path(out) / "digits"


def write_scenes(out: Path, *, test: int = 120, calibration: int = 60) -> tuple[Path, Path]:
    """Write the same scenes as ``out/scenes_coco`` and ``out/scenes_kitti``; returns the two folders.

    COCO: ``annotations/<split>.json`` (category ids 0..9), ``annotations/<split>_from_1.json`` (ids 1..10),
    ``images/<split>/*.jpg``, ``classmap.txt`` (line i names channel i). KITTI: ``<split>/{images,labels}``, 15 fields
    a line, boxes in pixels.
    """
    out = Path(out)
    with fresh_folder(out / "scenes_coco") as coco, fresh_folder(out / "scenes_kitti") as kitti:
        (coco / "annotations").mkdir()
        (coco / "classmap.txt").write_text("".join(f"{name}\n" for name in CLASSES))
        for split, count in (("test", test), ("calibration", calibration)):
            folders = coco / "images" / split, kitti / split / "images", kitti / split / "labels"
            for folder in folders:
                folder.mkdir(parents=True)
            indices = split_indices(split)
            scenes = []
            for number in range(count):
                pixels, boxes = draw_scene(image_rng("scenes", split, number), indices)
                name = f"scene_{number:04d}.jpg"
                # Full chroma resolution: the ink's colour is what tells a digit from a decoy.
                Image.fromarray(pixels).save(folders[0] / name, quality=95, subsampling=0)
                shutil.copyfile(folders[0] / name, folders[1] / name)
                (folders[2] / name).with_suffix(".txt").write_text("".join(kitti_line(box) for box in boxes))
                scenes.append((name, pixels.shape[1], pixels.shape[0], boxes))
            for name, first in ((split, 0), (f"{split}_from_1", 1)):
                text = json.dumps(coco_instances(scenes, first), indent=1)
                (coco / "annotations" / f"{name}.json").write_text(text + "\n")
    return out / "scenes_coco", out / "scenes_kitti"


def kitti_line(box: Box) -> str:
    """One KITTI label line (15 fields) with its newline."""
    corners = " ".join(f"{value:.2f}" for value in (box.x1, box.y1, box.x2, box.y2))
    return f"{CLASSES[box.class_id]} 0.00 0 0.00 {corners} {' '.join(['0.00'] * 7)}\n"


def coco_instances(scenes: list[tuple[str, int, int, list[Box]]], first: int = 0) -> dict[str, object]:
    """COCO's instances json of scenes (file name, width, height, boxes), whose category ids count from ``first``."""
    annotations = [
        {
            "image_id": image_id,
            "category_id": box.class_id + first,
            "bbox": [box.x1, box.y1, box.x2 - box.x1, box.y2 - box.y1],
            "area": (box.x2 - box.x1) * (box.y2 - box.y1),
            "iscrowd": 0,
        }
        for image_id, (_, _, _, boxes) in enumerate(scenes, 1)
        for box in boxes
    ]
    return {
        "info": {"description": "Scenes composed from scikit-learn's handwritten digits"},
        "images": [
            {"id": image_id, "file_name": name, "width": width, "height": height}
            for image_id, (name, width, height, _) in enumerate(scenes, 1)
        ],
        "annotations": [{"id": number, **annotation} for number, annotation in enumerate(annotations, 1)],
        "categories": [
            {"id": number, "name": name, "supercategory": "digit"} for number, name in enumerate(CLASSES, first)
        ],
    }


@contextmanager
def fresh_folder(final: Path) -> Iterator[Path]:
    """A new folder that takes the place of ``final`` only when the block ends well."""
    part = final.with_name(f".{final.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        if final.exists():
            shutil.rmtree(final)
        part.replace(final)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def from_module(module: str, function: str) -> Callable[[Path], object]:
    """The writer ``samples.<module>.<function>``, imported when it writes: those modules import this one."""
    return lambda out: getattr(import_module(f"samples.{module}"), function)(out)


WRITERS: dict[str, Callable[[Path], object]] = {
    "digits": write_digits,
    "scenes": write_scenes,
    "scene_masks": from_module("mask_data", "write_scene_masks"),
    "plates": from_module("text_data", "write_plates"),
    "words": from_module("text_data", "write_words"),
    "text_scenes": from_module("text_data", "write_text_scenes"),
    "pixel_classes": from_module("pixels_data", "write_masks"),
    "pixel_changes": from_module("pixels_data", "write_changes"),
    "boards": from_module("boards_data", "write_boards"),
    "clouds": from_module("pointcloud_data", "write_clouds"),
    "captions": from_module("caption_data", "write_captions"),
    "depth": from_module("depth_data", "write_depth"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the sample data sets.")
    parser.add_argument("names", nargs="*", metavar="data set", help=f"of {', '.join(WRITERS)}; all by default")
    parser.add_argument("--out", type=Path, default=Path("demo/data"))
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(WRITERS)
    if unknown:
        parser.error(f"unknown data set {', '.join(sorted(unknown))}; choose from {', '.join(WRITERS)}")
    for name in arguments.names or WRITERS:
        WRITERS[name](arguments.out)
        print(f"{arguments.out}: {name} written")


if __name__ == "__main__":
    main()
