"""latest_results.json, the established summary of a run on expressions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from nvidia_tao_deploy.actions.verbs import Verb
from nvidia_tao_deploy.cv.mask_grounding_dino.spec import Spec


def with_summary(measure: Verb) -> Verb:
    """The verb evaluate, which also leaves latest_results.json beside results.json where it ran on expressions."""

    def evaluate(
        source: Any, overrides: Sequence[str] = (), *, flags: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        results = measure(source, overrides, flags=flags)
        from nvidia_tao_deploy.actions.run import results_folder
        from nvidia_tao_deploy.files import write_json
        from nvidia_tao_deploy.spec.load import load_spec

        spec = load_spec(Spec, source, overrides, flags=flags or {})
        if spec.dataset.test_data_sources.data_type == "VG":
            now = datetime.now(timezone.utc).strftime("%Y%m%d_%H%M%S")
            write_json(results_folder(spec, "evaluate") / "latest_results.json", latest(results, "VG", now))
        return results

    return evaluate


def latest(numbers: dict[str, Any], task: str, timestamp: str) -> dict[str, Any]:
    """The established summary of an expression run."""
    same = ("gIoU", "cIoU", "mAP50", "mAP", "Pr@0.7", "Pr@0.8", "Pr@0.9")
    return {
        "timestamp": timestamp,
        "task_type": task,
        **{key: numbers[key] for key in same},
        "accuracy": 100 * numbers["accuracy"],
        "mean_iou": 100 * numbers["mean_iou"],
        "num_samples": numbers["num_images"],
    }
