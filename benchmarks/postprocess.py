"""Images/s of each network's decode at realistic sizes, of the confusion matrix and of the COCO evaluation.

    python -m benchmarks.postprocess            # all of it, about two minutes
    python -m benchmarks.postprocess --only mask2former
    python -m benchmarks.postprocess --images 5000 --only coco

Decoders (``benchmarks/decoders``) are compared with the same arithmetic written as plain Python loops; both see
the same outputs and must agree. The COCO evaluation is compared with pycocotools on the same
detections, 12 numbers equal.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import date
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import numpy as np

from benchmarks import decoders as rows
from benchmarks.decoders import rows as table


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000, help="of the COCO evaluation")
    parser.add_argument("--detections", type=int, default=100, help="per image of the COCO evaluation")
    parser.add_argument("--only", help="one row or network, confusion, or coco")
    options = parser.parse_args()
    from benchmarks.pipeline import _machine

    figures: dict[str, Any] = {"machine": _machine(), "date": date.today().isoformat()}
    if options.only not in ("coco", "confusion"):
        figures["decode_images_per_second"] = decoders(options.only)
    if options.only in (None, "confusion"):
        figures["confusion_matrix_1024x2048"] = confusion()
    if options.only in (None, "coco"):
        figures["coco_evaluation"] = coco(options.images, options.detections)
    print(json.dumps(figures, indent=2))


def rate(run: Callable[[], Sequence[Any]], images: float) -> float:
    """Images per second of processor time (all threads of it), the best of five turns of 0.2 seconds or two runs.

    What takes more than a second is run once.
    """
    best = 0.0
    for _ in range(5):
        began, runs, spent = time.process_time(), 0, 0.0
        while spent < 0.2 or (runs < 2 and spent < 1):
            run()
            runs += 1
            spent = time.process_time() - began
        best = max(best, runs * images / spent)
        if spent > 1:
            break
    return best


def decoders(only: str | None) -> dict[str, Any]:
    """Every row whose name or network is ``only``, or all."""
    for module in iter_modules(rows.__path__):
        import_module(f"{rows.__name__}.{module.name}")
    found: dict[str, Any] = {}
    for name, networks, make in table.ROWS:
        if only in (None, name, *networks):
            ours, plain, share = make()
            whole, part = ours(), plain()
            table.check_agreement(whole, part)
            fast, slow = rate(ours, len(whole)), rate(plain, len(whole) * share)
            found[name] = {"ours": digits(fast), "plain": digits(slow), "gain": digits(fast / slow)}
            print(name, found[name], file=sys.stderr)
    return found


def digits(value: float) -> float:
    """Three significant digits."""
    return float(f"{value:.3g}")


def confusion() -> dict[str, Any]:
    """Milliseconds of the confusion matrix of 1024x2048 pixels, and how much faster than a loop over pixels."""
    from nvidia_tao_deploy.metrics.segmentation import confusion_matrix

    rng = np.random.default_rng(0)
    figures: dict[str, Any] = {}
    for classes in (19, 150):
        truth, found = rng.integers(0, classes, (2, 1024, 2048)).astype(np.uint8)
        truth[rng.random(truth.shape) < 0.05] = 255
        times = []
        for _ in range(7):
            began = time.process_time()
            matrix = confusion_matrix(truth, found, classes)
            times.append(time.process_time() - began)
        began, counts = time.process_time(), [[0] * classes for _ in range(classes)]
        for label, other in zip(truth.ravel().tolist(), found.ravel().tolist(), strict=True):
            if label < classes:
                counts[label][other] += 1
        slow = time.process_time() - began
        assert (matrix == counts).all()
        figures[f"{classes} classes"] = {"ms": digits(min(times) * 1e3), "gain": digits(slow / min(times))}
    return figures


def coco(images: int, detections: int) -> dict[str, Any]:
    """Seconds of our evaluation and of pycocotools', and whether the 12 numbers agree to the last bit."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    from nvidia_tao_deploy.data.coco import CocoDetection
    from nvidia_tao_deploy.metrics.coco import CocoMetric
    from nvidia_tao_deploy.predictions.types import Detections

    rng = np.random.default_rng(0)
    categories = [{"id": i + 1, "name": f"c{i}"} for i in range(80)]
    document: dict[str, Any] = {"images": [], "annotations": [], "categories": categories}
    predictions = []
    for image in range(images):
        document["images"].append({"id": image, "file_name": f"{image}.jpg", "width": 640, "height": 480})
        truth = int(rng.integers(0, 15))
        corners = rng.uniform(0, 400, (truth, 2))
        sizes = rng.uniform(8, 200, (truth, 2))
        labels = rng.integers(1, 81, truth)
        for (x, y), (w, h), label in zip(corners.tolist(), sizes.tolist(), labels.tolist(), strict=True):
            document["annotations"].append(
                {
                    "id": len(document["annotations"]) + 1,
                    "image_id": image,
                    "category_id": label,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                }
            )
        hits = np.concatenate([corners, corners + sizes], axis=1) + rng.normal(0, 6, (truth, 4))
        noise = rng.uniform(0, 400, (detections - truth, 2))
        boxes = np.concatenate([hits, np.concatenate([noise, noise + rng.uniform(8, 200, noise.shape)], axis=1)])
        classes = np.concatenate([labels, rng.integers(1, 81, detections - truth)])
        predictions.append(Detections(boxes, rng.random(detections), classes))
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        path = Path(folder) / "truth.json"
        path.write_text(json.dumps(document))
        for image in document["images"]:
            (Path(folder) / image["file_name"]).touch()
        dataset = CocoDetection(path, Path(folder))
        samples = [dataset[i] for i in range(len(dataset))]
        began = time.perf_counter()
        metric = CocoMetric(dataset)
        for sample in samples:
            metric.update(sample, predictions[int(sample.id)])
        ours = metric.stats()
        fast = time.perf_counter() - began

        truth_set = COCO(str(path))
        began = time.perf_counter()
        rows = [
            np.column_stack(
                [
                    np.full(len(p), i),
                    p.boxes_xyxy[:, :2],
                    p.boxes_xyxy[:, 2:] - p.boxes_xyxy[:, :2],
                    p.scores,
                    p.class_ids,
                ]
            )
            for i, p in enumerate(predictions)
        ]
        evaluation = COCOeval(truth_set, truth_set.loadRes(np.concatenate(rows)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        slow = time.perf_counter() - began
    return {
        "images": images,
        "detections_per_image": detections,
        "seconds": round(fast, 2),
        "images_per_second": round(images / fast),
        "pycocotools_seconds": round(slow, 2),
        "gain": round(slow / fast, 1),
        "equal_to_the_last_bit": bool(np.array_equal(ours, evaluation.stats)),
    }


if __name__ == "__main__":
    main()
