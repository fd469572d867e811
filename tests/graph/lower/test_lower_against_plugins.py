"""Every plugin, lowered and run on ONNX Runtime, against what the real plugin gave on TensorRT 8.5.3.1.

The fixtures were written by scripts/record_plugins.py on one H200.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import plugin_graph
import pytest

FIXTURES = plugin_graph.ROOT / "tests" / "fixtures" / "plugins"
# Families that have been recorded; a file that is missing or not named here is an error.
RECORDED = (
    "batched_nms",
    "dense",
    "detection_output",
    "efficient_nms",
    "mask_rcnn",
    "points",
    "pyramid",
    "two_stage",
)
# (op type, case) -> why the plugin's output is not reproduced there.
_PAST_THE_END = "topK above the number of boxes: the plugin reads behind its buffers and returns NaN and leftovers"
_RACE = "among equal scores the plugin takes the order in which its threads arrive; two runs differ"
NOT_REPRODUCED: dict[tuple[str, str], str] = {
    ("BatchedNMSDynamic_TRT", "keep_above_candidates"): _PAST_THE_END,
    ("BatchedNMSDynamic_TRT", "negative_scores"): _PAST_THE_END,
    ("NMSDynamic_TRT", "keep_above_candidates"): _PAST_THE_END,
    ("BatchedNMSDynamic_TRT", "keep_above_top_k"): "with keepTopK above topK the plugin writes nothing",
    ("EfficientNMS_TRT", "ties"): _RACE,
    ("EfficientNMS_TRT", "class_agnostic"): "8.5.3.1 does not know the attribute and keeps classes apart",
    ("VoxelGeneratorPlugin", "voxel_five_features"): "the plugin puts the last feature of five-value points elsewhere",
}
# (op type, case) -> why the plugin could not be recorded there.
NOT_RECORDED: dict[tuple[str, str], str] = {
    ("EfficientNMS_TRT", "iou0"): "the plugin refuses an iou_threshold of 0",
    ("ResizeNearestDynamic", "resize_dynamic"): "8.5.3.1 has no such plugin",
    ("VoxelGeneratorPlugin", "voxel_coarse"): "illegal memory access: more voxels asked for than the grid has cells",
}
UNWRITTEN = 3.0e38


class Recorded:
    def __init__(self, record: dict, data) -> None:
        self.op: str = record["op_type"]
        self.name: str = record["name"]
        self.attrs: dict = record["attrs"]
        self.constants = tuple(record["constants"])
        self.error: str | None = record.get("error")
        self.inputs = {name: data[key] for name, key in record.get("inputs", [])}
        if self.op == "EfficientNMS_ONNX_TRT" and self.inputs:
            # The plugin takes (B, N, C) scores; a case recorded with fewer score rows than boxes used the first ones.
            rows = self.inputs["scores"].shape[1]
            self.inputs["boxes"] = np.ascontiguousarray(self.inputs["boxes"][:, :rows])
        self.outputs = {name: data[key] for name, key in record.get("outputs", [])}


def load(path: Path) -> list[Recorded]:
    with np.load(path, allow_pickle=False) as data:
        return [Recorded(record, data) for record in json.loads(str(data["meta"]))["cases"]]


ALL = [case for path in sorted(FIXTURES.glob("*.npz")) for case in load(path)]
USABLE = [c for c in ALL if c.error is None and not c.name.endswith("_all_inputs")]


def test_the_recorded_families_are_all_here() -> None:
    assert sorted(path.stem for path in FIXTURES.glob("*.npz")) == sorted(RECORDED)


def test_every_case_that_could_not_be_recorded_is_explained() -> None:
    assert {(c.op, c.name) for c in ALL if c.error is not None} == set(NOT_RECORDED)


def comparable(op: str, outputs: list[np.ndarray]) -> list[np.ndarray]:
    """Outputs without what a plugin leaves open: order where threads race, rows behind the count, unwritten memory."""
    if op.startswith("NMS"):
        rows, count = outputs
        count = count.view(np.int32) if count.dtype == np.float32 else count
        return [rows, count]
    if op == "DecodeBbox3DPlugin":
        rows, count = outputs
        return [np.concatenate([by_value(rows[b, :n]) for b, n in enumerate(count)]), count]
    if op == "VoxelGeneratorPlugin":
        voxels, coords, count = outputs
        order = [np.lexsort(coords[b, :n].T[::-1]) for b, n in enumerate(count)]
        kept = [np.stack([by_value(p) for p in voxels[b][o]]) for b, o in enumerate(order) if len(o)]
        kept = kept or [voxels[:0, :0].reshape(0, *voxels.shape[2:])]
        return [np.concatenate(kept), np.concatenate([coords[b][o] for b, o in enumerate(order)]), count]
    if op in ("MultilevelCropAndResize_TRT", "PyramidROIAlign_TRT"):
        return [np.where(np.abs(output) > UNWRITTEN, 0, output) for output in outputs]
    if op == "EfficientNMS_ONNX_TRT":
        # Images race for rows, and spare rows repeat the last one.
        return [np.unique(output, axis=0) for output in outputs]
    if op == "EfficientNMS_TRT":
        count, boxes, scores, labels = outputs
        rows = np.concatenate([-scores[..., None], labels[..., None], boxes], -1)
        order = np.stack([np.lexsort(image.T[::-1]) for image in rows])
        return [count, *(np.stack([a[o] for a, o in zip(array, order, strict=True)]) for array in outputs[1:])]
    if op == "BatchedNMS_TRT":
        return [outputs[0].reshape(-1, 1), *outputs[1:]]
    return outputs


def by_value(rows: np.ndarray) -> np.ndarray:
    return rows[np.lexsort(np.round(rows, 3).T[::-1])]


@pytest.mark.parametrize("case", USABLE, ids=[f"{c.op}-{c.name}" for c in USABLE])
def test_lowered_plugin_equals_the_plugin(case: Recorded) -> None:
    model = plugin_graph.plugin_model(case.op, case.attrs, case.inputs, list(case.outputs), case.constants)
    got = comparable(case.op, plugin_graph.run_onnx(plugin_graph.lower_checked(model), case.inputs))
    expected = comparable(case.op, list(case.outputs.values()))
    same = all(
        a.shape == e.shape and np.allclose(a, e, rtol=1e-5, atol=1e-5) for a, e in zip(got, expected, strict=True)
    )
    reason = NOT_REPRODUCED.get((case.op, case.name))
    if reason is not None:
        assert not same, f"reproduced after all: {reason}"
        return
    for name, a, e in zip(case.outputs, got, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-5, atol=1e-5, err_msg=name)
