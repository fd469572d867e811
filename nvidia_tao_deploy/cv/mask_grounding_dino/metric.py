"""The metric of expressions: merged masks."""

from __future__ import annotations

import json
from datetime import datetime, timezone

import numpy as np

from nvidia_tao_deploy.cv.mask_grounding_dino.decode import Grounded
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.errors import DataError
from nvidia_tao_deploy.metrics.coco_masks import encode_segmentation

SUCCESS = 0.5  # IoU from which an expression counts as found
THRESHOLDS = np.arange(0.5, 0.96, 0.05).round(2)
SHARES = (0.5, 0.6, 0.7, 0.8, 0.9)
PRECISIONS = (0.7, 0.8, 0.9)


class MergedMasks:
    """Overlap of the union of what was found with the union of what is annotated, per expression.

    IoU is 1 where both are empty. Formulas: contract mask_grounding_dino.md, section 8; an expression counts as found
    from IoU 0.5.
    """

    def __init__(self) -> None:
        self._rows: list[tuple[int, int, bool, bool]] = []

    def update(self, sample: Sample, prediction: Grounded) -> None:
        """Take one expression's result."""
        from pycocotools import mask as codes

        found = prediction.union
        truth = np.zeros(found.shape, bool)
        try:
            for segmentation in sample.target:
                truth |= codes.decode(encode_segmentation(segmentation, (found.shape[1], found.shape[0]))).astype(bool)
        except DataError as error:
            raise DataError(error.what, where=str(sample.id)) from error
        both, either = int((found & truth).sum()), int((found | truth).sum())
        self._rows.append((both, either, bool(truth.any()), bool(found.any())))

    def compute(self) -> dict[str, float]:
        """The keys of the contract."""
        if not self._rows:
            raise DataError("no expression was evaluated")
        both, either, wanted, found = (np.array(column) for column in zip(*self._rows, strict=True))
        iou = np.where(either > 0, both / np.maximum(either, 1), 1.0)
        hit = iou >= SUCCESS
        tp, tn = int((wanted & found & hit).sum()), int((~wanted & ~found).sum())
        fp, fn = int((~wanted & found).sum()), int((wanted & ~(found & hit)).sum())
        inter, union, answered = int(both.sum()), int(either.sum()), int(found.sum())
        values: dict[str, float] = {
            "mean_iou": float(iou.mean()),
            "iou_std": float(iou.std()),
            "accuracy": float(hit.mean()),
            "overall_iou": inter / union if union else 1.0,
            "cIoU": 100.0 * inter / max(union, 1),
            "gIoU": 100.0 * float(iou.mean()),
            "mAP50": 100.0 * float(hit.mean()),
            "mAP": 100.0 * float(np.mean([(iou >= t).mean() for t in THRESHOLDS])),
            # of what was answered: an expression without target that was rightly left alone is no precision
            **{f"Pr@{t}": 100.0 * float((found & (iou >= t)).sum()) / max(answered, 1) for t in PRECISIONS},
            "N_acc": 100.0 * tp / max(tp + fn, 1),
            "T_acc": 100.0 * tn / max(tn + fp, 1),
            **{f"IoU@{t}": float((iou >= t).mean()) for t in SHARES},
            "TP": tp,
            "TN": tn,
            "FP": fp,
            "FN": fn,
            "not_empty_predictions": answered,
            "num_images": len(iou),
        }
        return values

    def kpi(self) -> dict[str, float]:
        """The established headlines, all in percent."""
        numbers = self.compute()
        return {
            **{key: numbers[key] for key in ("gIoU", "cIoU", "mAP50", "mAP")},
            "accuracy": 100 * numbers["accuracy"],
            "mean_iou": 100 * numbers["mean_iou"],
            **{f"Pr@{t}": numbers[f"Pr@{t}"] for t in PRECISIONS},
            "num_samples": numbers["num_images"],
        }

    def files(self) -> dict[str, str]:
        """latest_results.json, the established summary."""
        now = datetime.now(timezone.utc).strftime("%Y%m%d_%H%M%S")
        summary = {"timestamp": now, "task_type": "VG", **self.kpi()}
        return {"latest_results.json": json.dumps(summary, indent=2) + "\n"}

    def report(self) -> str:
        """One line per key."""
        return "\n".join(f"{key:<24}{value:>10.4f}" for key, value in self.compute().items())
