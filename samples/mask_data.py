"""Scenes with a mask for every digit, and category ids from 1 as COCO has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from samples.data import coco_instances, fresh_folder
from samples.render import CLASSES, Box, draw_inked_scene, image_rng, split_indices


def write_scene_masks(out: Path, *, test: int = 120, calibration: int = 60) -> Path:
    """Write the scenes of ``write_scenes`` as ``out/scenes_masks``; returns the folder.

    ``images/<split>/*.jpg``, ``annotations/<split>.json`` (category ids 1..10, segmentations of what the ink covers)
    and ``classmap.txt`` (line i, from 0, names category i + 1).
    """
    with fresh_folder(Path(out) / "scenes_masks") as folder:
        (folder / "annotations").mkdir()
        (folder / "classmap.txt").write_text("".join(f"{name}\n" for name in CLASSES))
        for split, count in (("test", test), ("calibration", calibration)):
            (folder / "images" / split).mkdir(parents=True)
            scenes, codes = [], []
            for number in range(count):
                pixels, boxes, masks = draw_inked_scene(image_rng("scenes", split, number), split_indices(split))
                name = f"scene_{number:04d}.jpg"
                Image.fromarray(pixels).save(folder / "images" / split / name, quality=95, subsampling=0)
                scenes.append((name, pixels.shape[1], pixels.shape[0], boxes))
                codes += [run_length(mask, box, pixels.shape[:2]) for mask, box in zip(masks, boxes, strict=True)]
            document: Any = coco_instances(scenes)
            for annotation, code in zip(document["annotations"], codes, strict=True):
                annotation["category_id"] += 1
                annotation |= {"segmentation": code, "area": sum(code["counts"][1::2])}
            for category in document["categories"]:
                category["id"] += 1
            (folder / "annotations" / f"{split}.json").write_text(json.dumps(document) + "\n")
    return Path(out) / "scenes_masks"


def run_length(mask: NDArray[np.bool_], box: Box, size: tuple[int, ...]) -> dict[str, list[int]]:
    """COCO's run-length code of a box's mask in an image of ``size`` (height, width): columns first, zeros first."""
    canvas = np.zeros(size, bool)
    canvas[box.y1 : box.y2, box.x1 : box.x2] = mask
    changes = np.flatnonzero(np.diff(canvas.ravel(order="F"), prepend=False))
    return {"counts": np.diff(changes, prepend=0, append=canvas.size).tolist(), "size": list(size)}
