"""What reports make of every kind of result: scores, figures by class, pictures, blocks of layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nvidia_tao_deploy.actions.bench import _methods
from nvidia_tao_deploy.actions.diagnose import blocks_of
from nvidia_tao_deploy.actions.measure import Subset, headline, numbers_of, per_class
from nvidia_tao_deploy.cv.multitask_classification.results import TaskAccuracy
from nvidia_tao_deploy.data.point_cloud import CloudTarget
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.data.text_regions import TextTruth
from nvidia_tao_deploy.metrics.confidence import scored, seen
from nvidia_tao_deploy.metrics.retrieval import RetrievalMetric
from nvidia_tao_deploy.metrics.topk import TopKMetric
from nvidia_tao_deploy.predictions.depth import DepthMap
from nvidia_tao_deploy.predictions.embeddings import Embeddings
from nvidia_tao_deploy.predictions.polygons import TextRegions
from nvidia_tao_deploy.predictions.text import Text
from nvidia_tao_deploy.predictions.types import Classification, CloudBoxes, Detections, LabelMap, PanopticMap
from nvidia_tao_deploy.report.images import Kept, side_by_side, views
from nvidia_tao_deploy.spec.sections import Compare, NetworkSpec
from nvidia_tao_deploy.transforms.transform import Geometry

PLACED = Geometry((40, 20), (80, 40), (2.0, 2.0))
SQUARE = np.array([[0.0, 0.0], [10.0, 0.0], [10.0, 10.0], [0.0, 10.0]])
CAR = np.array([0.0, 0.0, 0.0, 4.0, 2.0, 1.5, 0.3])
RED = (225, 40, 40)


def text(word: str, confidence: float) -> Text:
    return Text(word, confidence, np.zeros(len(word), np.float32))


@pytest.mark.parametrize(
    ("target", "prediction", "positives", "correct"),
    [
        ("abc", text("abc", 0.9), 1, [True]),
        ("abc", text("abd", 0.9), 1, [False]),
        (True, np.float32(3.5), 1, [True]),  # a defect, and how far the unit is from a good one
        (False, np.float32(3.5), 0, [False]),
        ({"a": 1, "b": 0}, {"a": Classification(np.array([0.2, 0.8])), "b": Classification(np.array([0.4, 0.6]))}, 2,
         [True, False]),
        # Network pixels against source pixels; an ignored region is no object.
        (TextTruth([SQUARE, SQUARE + 20], ["a", "###"], np.array([False, True])),
         TextRegions([SQUARE * 2, SQUARE * 2 + 40], np.array([0.9, 0.8]), PLACED), 1, [True, False]),
        (CloudTarget(CAR[None], np.array([2])),
         CloudBoxes(np.stack([CAR, CAR + np.eye(7)[0] * 9]), np.array([0.9, 0.8]), np.array([2, 2]), PLACED), 1,
         [True, False]),
    ],
)  # fmt: skip
def test_scores_of_every_kind(target: Any, prediction: Any, positives: int, correct: list[bool]) -> None:
    found = seen(target, prediction)
    assert found is not None
    curve = scored([found], {})
    assert (curve.positives, curve.correct.tolist()) == (positives, correct)


def test_a_label_map_has_no_scores() -> None:
    assert seen(object(), LabelMap(np.zeros((4, 4), np.uint8), PLACED)) is None


def test_queries_answer_for_a_gallery() -> None:
    metric = RetrievalMetric(["a", "b"], 1)
    for label, row, gallery in ((0, [1, 0], True), (1, [0, 1], True), (0, [3, 1], False), (1, [2, 1], False)):
        metric.update(Sample(f"{label}{gallery}", (Path("x"),), label, {"gallery": gallery}), np.array(row, np.float32))
    scores, right = zip(*metric.answers(), strict=True)
    assert scores == pytest.approx([3 / np.sqrt(10), 2 / np.sqrt(5)])
    assert right == (True, False)


def test_several_tasks_are_judged_by_their_mean() -> None:
    metric = TaskAccuracy({"color": ["a", "b"], "size": ["c", "d"]})
    yes, no = Classification(np.array([0.9, 0.1])), Classification(np.array([0.1, 0.9]))
    for size in (yes, no):
        metric.update(Sample("x", (), {"color": 0, "size": 0}), {"color": yes, "size": size})
    numbers = numbers_of(metric)
    assert numbers == {"mean of tasks": 0.75, "color": 1.0, "size": 0.5}
    assert headline(numbers, Compare(), "x").key == "mean of tasks"


def test_figures_by_class_wherever_the_metric_has_some() -> None:
    top = TopKMetric(["a", "b"])
    for target, row in ((0, [0.9, 0.1]), (1, [0.9, 0.1]), (1, [0.1, 0.9])):
        top.update(Sample(target, (), target), Classification(np.array(row)))
    nothing: Any = None
    assert per_class(top, top.compute(), nothing) == ("recall", {"a": 1.0, "b": 0.5})
    kitti = {"AP_car": 0.5, "AP_dog": 0.25, "mAP": 0.375}
    assert per_class(nothing, kitti, nothing) == ("AP", {"car": 0.5, "dog": 0.25})
    cloud = {"bev mAP": 1.0, "bev AP Car": 1.0, "3d AP Car": 0.5}
    assert per_class(nothing, cloud, nothing) == ("AP", {"Car": 1.0})
    blocks = {"Mean IOU": 0.5, "sky": {"precision": 1.0, "iou": 0.5}}
    assert per_class(nothing, blocks, nothing) == ("IoU", {"sky": 0.5})
    assert per_class(nothing, {"PQ": 0.5, "PQ_by_class": {"sky": 0.5}}, nothing) == ("PQ", {"sky": 0.5})
    assert per_class(nothing, {"AP": 0.5, "AP50": 0.7}, nothing)[1] == {}


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    Image.new("RGB", (40, 20), (90, 90, 90)).save(tmp_path / "grey.png")
    return Sample("grey", (tmp_path / "grey.png",), "abc")


def maps() -> list[tuple[Any, Any]]:
    """Pairs of predictions that differ in the right half of the image."""
    one, other = np.zeros((40, 80), np.uint8), np.zeros((40, 80), np.uint8)
    other[:, 40:] = 1
    classes = np.array([5, 7])
    depth = np.linspace(1, 2, 3200, dtype=np.float32).reshape(40, 80)
    return [
        (LabelMap(one, PLACED), LabelMap(other, PLACED)),
        (
            PanopticMap(one.astype(np.int32) + 1, classes, PLACED),
            PanopticMap(other.astype(np.int32) + 1, classes, PLACED),
        ),
        (one, other),
        (DepthMap(depth, PLACED), DepthMap(np.where(other == 1, depth * 1.2, depth).astype(np.float32), PLACED)),
    ]


@pytest.mark.parametrize(("one", "other"), maps())
def test_maps_are_red_where_they_differ(sample: Sample, one: Any, other: Any) -> None:
    (view,) = views([Kept(sample, one, other)], (0, 0))
    assert view.difference == pytest.approx(0.5, abs=0.02)
    left, right = (np.asarray(picture) for picture in view.draw(Image.new("RGB", (480, 240))))
    assert not (left == RED).all(axis=-1).any()
    red = (right == RED).all(axis=-1)
    assert red[:, 250:].all()
    assert not red[:, :230].any()


def test_boxes_answers_and_the_order_of_pictures(sample: Sample) -> None:
    box = np.array([[5.0, 5.0, 15.0, 15.0]])
    one, other = Detections(box, np.array([0.9]), np.array([1])), Detections(box, np.array([0.9]), np.array([2]))
    (view,) = views([Kept(sample, one, other)], (0.5, 0.5))
    assert view.difference == 2
    left, _ = view.draw(Image.new("RGB", (480, 240)))
    assert left.getpixel((60, 100)) == RED
    assert views([Kept(sample, one, other)], (0.95, 0.95))[0].difference == 0
    same, changed = Kept(sample, text("abc", 0.9), text("abc", 0.8)), Kept(sample, text("abc", 0.9), text("abd", 0.9))
    page = side_by_side([same, changed], ("fp32", "int8"), (0, 0), 2)
    assert page.index("abd") < page.index("0.800")  # the changed answer first
    assert page.count('class="bad"') == 2
    assert side_by_side([Kept(sample, object(), object())], ("fp32", "int8"), (0, 0), 2) == ""


def test_embeddings_are_shown_with_what_is_next_to_them(sample: Sample) -> None:
    def row(*values: float) -> Any:
        return np.array(values, np.float32)

    gallery = [
        Kept(Sample(name, sample.paths, name, {"gallery": True}), row(*at), row(*at))
        for name, at in (("a", (1, 0)), ("b", (0, 1)))
    ]
    query = Kept(Sample("q", sample.paths, "a", {"gallery": False}), row(2, 1), row(1, 2))
    (view,) = views([*gallery, query], (0, 0))
    assert view.difference == pytest.approx(1)
    assert ["class a" in view.texts[0], "class b" in view.texts[1]] == [True, True]
    pairs = [
        Kept(
            Sample(name, sample.paths, None, {"text": name}),
            Embeddings(row(*at), row(*at)),
            Embeddings(row(*at), row(*at)),
        )
        for name, at in (("one", (1, 0)), ("two", (0, 1)))
    ]
    assert [view.texts[0] for view in views(pairs, (0, 0))] == ["'one' (1.000)", "'two' (1.000)"]


class Ten:
    """Ten samples."""

    root: Path | None = None

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int, /) -> Sample:
        return Sample(index, (Path(f"{index}.png"),))


def test_a_subset_leaves_out_what_was_calibrated_on() -> None:
    used = {Path(f"{index}.png") for index in range(0, 10, 2)}
    part = Subset(Ten(), 3, used)
    assert [part[index].id for index in range(len(part))] == [1, 5, 9]
    assert part.held_out
    everything = Subset(Ten(), 20, {Path(f"{index}.png") for index in range(10)})
    assert (len(everything), everything.held_out) == (10, False)


def test_a_subset_keeps_what_its_samples_are_compared_with() -> None:
    """The texts of a class stand between the images: without them the class has no vector."""

    class Mixed(Ten):
        def __getitem__(self, index: int, /) -> Sample:
            return Sample(index, (Path(f"{index}.png"),), meta={"reference": index in (0, 4, 5)})

    part = Subset(Mixed(), 2, {Path("9.png")}, references=True)
    assert [part[index].id for index in range(len(part))] == [0, 1, 4, 5, 8]
    assert len(Subset(Mixed(), 2)) == 2


def test_blocks_are_parts_of_the_names_or_neighbours() -> None:
    resnet = [f"/layer{i}/layer{i}.{j}/conv{k}/Conv" for i in (1, 2) for j in (0, 1) for k in (1, 2, 3)]
    blocks = blocks_of(["/conv1/Conv", *resnet, "/fc/Gemm"])
    assert blocks["/layer1/layer1.0"] == resnet[:3]
    assert len(blocks) == 6
    flat = blocks_of([f"Conv_{index}" for index in range(9)])
    assert flat["Conv_3 to Conv_5"] == ["Conv_3", "Conv_4", "Conv_5"]
    assert blocks_of(["Conv_0"]) == {"Conv_0": ["Conv_0"]}


def test_the_calibration_method_is_swept_unless_it_is_settled() -> None:
    def methods(calibration: dict[str, Any], **diagnose: Any) -> list[str]:
        tree = {"gen_trt_engine": {"tensorrt": {"calibration": calibration}}, "diagnose": diagnose}
        return _methods(NetworkSpec.model_validate(tree))

    assert methods({}) == ["entropy", "minmax", "percentile", "mse"]
    assert methods({"method": "mse"}) == ["mse"]
    assert methods({"method": "mse"}, methods=["minmax", "mse"]) == ["minmax", "mse"]
    assert methods({"cal_cache_file": "cal.bin"}) == ["entropy"]
