"""compare on the sample networks, its verdict and budgets, and the score arithmetic against plain references."""

from __future__ import annotations

import ctypes
import json
import re
import threading
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from actions.commands import Shell, status, write_spec
from repository import MODELS
from sklearn.metrics import f1_score

from nvidia_tao_deploy.actions import timing
from nvidia_tao_deploy.actions.compare import Evaluated, Measured, over_budget, verdict, with_references
from nvidia_tao_deploy.actions.measure import Headline, headline
from nvidia_tao_deploy.actions.model import OpenModel
from nvidia_tao_deploy.actions.timing import Timing
from nvidia_tao_deploy.data.coco import CocoTarget
from nvidia_tao_deploy.errors import SpecError
from nvidia_tao_deploy.metrics.confidence import Scored, class_votes, scored, seen, thresholds
from nvidia_tao_deploy.pipeline.tally import Tally
from nvidia_tao_deploy.predictions.types import Classification, Detections
from nvidia_tao_deploy.report import html, plots
from nvidia_tao_deploy.spec.sections import Compare
from samples.pixels_data import write_masks
from samples.text_data import write_plates


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


def content(tmp_path: Path, network: str, images: Path, **dataset: Any) -> dict[str, Any]:
    calibration = {"cal_image_dir": [str(images)], "cal_batch_size": 4, "cal_batches": 3}
    tensorrt = {"opt_batch_size": 4, "max_batch_size": 8, "calibration": calibration}
    return {
        "results_dir": str(tmp_path / "results"),
        "dataset": {"batch_size": 4, **dataset},
        "gen_trt_engine": {"onnx_file": str(MODELS / f"{network}.onnx"), "tensorrt": tensorrt},
        "compare": {"timing_seconds": 0.05, "repeats": 2, "sample_images": 2},
    }


class Links(HTMLParser):
    """Addresses a page would load, tags that are left open."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [str(value) for name, value in attrs if name in ("src", "href", "srcset", "action")]
        if tag not in ("meta", "br", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def check_page(text: str) -> None:
    """Well-formed, and nothing is asked for from elsewhere."""
    parser = Links()
    parser.feed(text)
    assert parser.open == []
    assert all(link.startswith("data:image/jpeg;base64,") for link in parser.loaded)
    assert not re.search(r"https?://|@import|url\(", text)


def test_classification_is_compared_and_reported(shell: Shell, tmp_path: Path, digits: Path) -> None:
    tree = content(
        tmp_path,
        "classification_pyt",
        digits / "calibration",
        root_dir=str(digits),
        test_dataset={"images_dir": str(digits / "test")},
    )
    spec = write_spec(tmp_path / "spec.yaml", tree)
    assert (
        shell("classification_pyt", "compare", "-e", spec, "precisions=int8", "compare.batch_sizes=1,16", "--json") == 0
    ), shell.err
    report = json.loads(shell.out)
    folder = tmp_path / "results" / "compare"
    assert report == json.loads((folder / "compare.json").read_text())
    assert [row["precision"] for row in report["precisions"]] == ["fp32", "fp16", "int8"]
    assert report["metric"] == "top_k_accuracy"
    assert report["metric_noise"] == 0
    for row in report["precisions"]:
        assert [speed["batch_size"] for speed in row["timings"]] == [1, 16]
        for speed in row["timings"]:
            low, high = speed["images_per_second_range"]
            assert 0 < low <= speed["images_per_second"] <= high
            assert speed["latency_ms"]["p50"] <= speed["latency_ms"]["p99"]
        assert row["images_evaluated"] == 60
        assert Path(row["measured"]).is_file()
    first, last = report["precisions"][0], report["precisions"][2]
    share = (first["metrics"]["top_k_accuracy"] - last["metrics"]["top_k_accuracy"]) / first["metrics"][
        "top_k_accuracy"
    ]
    assert last["loss_percent"] == pytest.approx(100 * share)
    # Accepting every score, recall is accuracy.
    rows = report["confidence"]["precisions"]
    assert rows["fp32"]["f1"][0] == pytest.approx(first["metrics"]["top_k_accuracy"])
    assert rows["int8"]["restored"]["recall"] >= rows["fp32"]["at_fp32_threshold"]["recall"]
    check_page((folder / "compare.html").read_text())
    assert status(folder)[-1]["status"] == "SUCCESS"


def test_detections_are_compared_and_a_missed_budget_fails(
    shell: Shell, tmp_path: Path, scenes: tuple[Path, Path]
) -> None:
    coco = scenes[0]
    sources = {"json_file": str(coco / "annotations" / "test.json"), "image_dir": str(coco / "images" / "test")}
    tree = content(tmp_path, "rtdetr_conv", coco / "images" / "calibration", test_data_sources=sources)
    spec = write_spec(tmp_path / "spec.yaml", tree)
    words = ("compare.precisions=[fp16]", "compare.min_speedup=1000", "compare.repeats=1")
    message = shell.refused(1, "rtdetr", "compare", "-e", spec, *words)
    assert "min_speedup is 1000" in message
    assert "compare.html: fp16" in message
    folder = tmp_path / "results" / "compare"
    assert status(folder)[-1]["status"] == "FAILURE"
    report = json.loads((folder / "compare.json").read_text())
    assert len(report["over_budget"]) == 1
    assert report["metric_noise"] is None
    shift = report["confidence"]
    assert shift["class_of_prediction"] == {str(i): i for i in range(10)}
    assert shift["precisions"]["fp32"]["at_fp32_threshold"]["f1"] > 0.85
    assert len(report["precisions"][0]["per_class"]) == 10
    page = (folder / "compare.html").read_text()
    check_page(page)
    assert page.count("<img") == 4


def test_where_nothing_is_annotated_no_precision_is_blamed(
    shell: Shell, tmp_path: Path, scenes: tuple[Path, Path]
) -> None:
    coco = scenes[0]
    annotations = json.loads((coco / "annotations" / "test.json").read_text())
    annotations |= {"images": annotations["images"][:1], "annotations": []}
    (tmp_path / "none.json").write_text(json.dumps(annotations))
    sources = {"json_file": str(tmp_path / "none.json"), "image_dir": str(coco / "images" / "test")}
    tree = content(tmp_path, "rtdetr_conv", coco / "images" / "calibration", test_data_sources=sources)
    spec = write_spec(tmp_path / "spec.yaml", tree)
    assert shell("rtdetr", "compare", "-e", spec, "compare.precisions=[fp16]", "compare.repeats=1") == 0
    report = json.loads((tmp_path / "results" / "compare" / "compare.json").read_text())
    assert report["confidence"] is None
    assert any("AP undefined" in line for line in report["verdict"])
    assert "too inaccurate" not in "".join(report["verdict"])
    assert "of fp32 is -1.0 on the subset" in shell.refused(1, "rtdetr", "diagnose", "-e", spec)


def test_what_no_build_can_do_is_told_before_the_first(shell: Shell, tmp_path: Path, digits: Path) -> None:
    test = {"images_dir": str(digits / "test")}
    tree = content(tmp_path, "classification_pyt", digits / "calibration", root_dir=str(digits), test_dataset=test)
    spec, folder = write_spec(tmp_path / "spec.yaml", tree), tmp_path / "results" / "compare"
    command = ("classification_pyt", "compare", "-e", spec)
    message = shell.refused(2, *command, "gen_trt_engine.tensorrt.calibration.cal_image_dir=[]")
    assert "cal_image_dir" in message
    assert not list(folder.rglob("*.engine"))
    message = shell.refused(2, *command, "compare.metric=topk")
    assert "It has top_k_accuracy" in message
    assert len(list(folder.rglob("*.engine"))) == 1


def test_a_network_without_int8_is_compared_in_what_it_has(shell: Shell, tmp_path: Path) -> None:
    plates = write_plates(tmp_path, test=4)
    folders = {"image_directory_path": str(plates / "images"), "label_directory_path": str(plates / "labels")}
    tree = {
        "results_dir": str(tmp_path / "results"),
        "dataset_config": {
            "validation_data_sources": [folders],
            "characters_list_file": str(plates / "characters.txt"),
        },
        "gen_trt_engine": {"onnx_file": str(MODELS / "lprnet.onnx"), "tensorrt": {"max_batch_size": 4}},
        "evaluate": {"batch_size": 4},
        "compare": {"timing_seconds": 0.01, "repeats": 1},
    }
    spec = write_spec(tmp_path / "spec.yaml", tree)
    assert shell("lprnet", "compare", "-e", spec, "--json") == 0, shell.err
    report = json.loads(shell.out)
    assert [row["precision"] for row in report["precisions"]] == ["fp32", "fp16"]
    assert "int8 is left out: lprnet has none" in report["notes"]
    assert "It has fp32, fp16, bf16" in shell.refused(2, "lprnet", "compare", "-e", spec, "precisions=int8")
    assert "lprnet has no int8" in shell.refused(2, "lprnet", "diagnose", "-e", spec)


def test_int8_never_stands_without_fp16() -> None:
    assert with_references(["int8"]) == (["fp32", "fp16", "int8"], ["fp16", "fp32"])
    assert with_references(["bf16"]) == (["fp32", "bf16"], ["fp32"])


def measured(precision: str, rounds: list[float], loss: float) -> Measured:
    found = Evaluated({}, ("", {}), [], {}, Tally())
    return Measured(precision, None, {}, found, timings=[Timing(1, rounds, [0.01])], loss=loss)


@pytest.mark.parametrize(
    ("int8", "loss", "use", "said"),
    [
        ([380.0, 400.0], 0.4, "int8", "int8: 1.93x fp16, mAP -0.40 %: use int8"),
        # One round lies within fp16's.
        ([205.0, 390.0], 0.4, "fp16", "int8: 1.47x fp16, mAP -0.40 % (speed within the noise of fp16)"),
        ([180.0, 190.0], 0.4, "fp16", "int8: 0.91x fp16, mAP -0.40 % (slower than fp16)"),
        ([380.0, 400.0], 3.0, "fp16", "int8: 1.93x fp16, mAP -3.00 % (too inaccurate)"),
        ([380.0, 400.0], float("nan"), "fp16", "int8: 1.93x fp16, mAP undefined"),
    ],
)
def test_the_verdict_weighs_speed_noise_and_accuracy(int8: list[float], loss: float, use: str, said: str) -> None:
    found = [measured("fp32", [99, 101], 0), measured("fp16", [195, 210], 0), measured("int8", int8, loss)]
    choice, lines = verdict(found, Headline("mAP", True), None)
    assert choice == use
    assert lines[0].startswith("fp16: 2.02x fp32, mAP +0.00 %")
    assert lines[1:] == ([said] if use == "int8" else [said, "int8 not worth it here: use fp16"])
    assert verdict(found[:2], Headline("mAP", True), None) == ("fp16", ["fp16: 2.02x fp32, mAP +0.00 %: use fp16"])


def test_the_verdict_says_which_batch_size_it_goes_by() -> None:
    found = [measured("fp32", [100], 0), measured("fp16", [90], 0)]
    for entry, (at_8, at_64) in zip(found, ((200, 300), (500, 450)), strict=True):
        entry.timings += [Timing(8, [at_8], [0.01]), Timing(64, [at_64], [0.01])]
    choice, lines = verdict(found, Headline("mAP", True), None)
    assert choice == "fp32"
    assert lines[0] == "fp16: 0.90x fp32 at batch 1 (2.50x at 8, 1.50x at 64), mAP +0.00 % (slower than fp32)"


def test_budgets_bind_the_listed_precisions_only() -> None:
    found = [measured("fp32", [100], 0), measured("fp16", [150], 5.0), measured("int8", [180], float("nan"))]
    section = Compare(precisions=["int8"], max_metric_drop=1.0, min_speedup=2.0)
    misses = over_budget(found, section, Headline("mAP", True))
    assert misses == ["int8: mAP undefined, max_metric_drop is 1.0 %", "int8 is 1.80x fp32, min_speedup is 2.0"]


def test_the_deciding_number() -> None:
    numbers = {"AP_zero": 0.5, "mAP": 0.6, "IoU": {"a": 1.0}}
    assert headline(numbers, Compare(), "x") == Headline("mAP", True)
    assert headline({"d1": 0.1, "abs_rel": 0.2}, Compare(), "x") == Headline("abs_rel", False)
    assert headline({"top_k_accuracy": 1.0, "top_1_accuracy": 0.9}, Compare(), "x").key == "top_1_accuracy"
    ranks = {"t2i_mAP": 1.0, "t2i_MedR": 2.0, "Mean Error 2D": 0.1, "false_negative": 1.0, "Mean 3D IoU": 0.5}
    less = [name for name in ranks if not headline(ranks, Compare(metric=name), "x").higher_is_better]
    assert less == ["t2i_MedR", "Mean Error 2D", "false_negative"]
    assert Headline("epe", False).loss(2.0, 2.1) == pytest.approx(5.0)
    assert Headline("epe", False).change(5.0) == "epe +5.00 %"
    assert np.isnan(Headline("mAP", True).loss(0.0, 0.1))
    assert np.isnan(Headline("APl", True).loss(-1.0, -1.0))  # COCO's word for "nothing to measure"
    with pytest.raises(SpecError, match="no number 'map'"):
        headline(numbers, Compare(metric="map"), "x")


def test_f1_of_classifications_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    rows, truth = rng.dirichlet((1, 1), 200).round(2), rng.integers(0, 2, 200)
    images = [seen(int(label), Classification(row)) for row, label in zip(rows, truth, strict=True)]
    curve = scored([image for image in images if image is not None], {})
    found, scores = rows.argmax(axis=1), rows.max(axis=1)
    for threshold in (0.0, 0.75, 0.9, 1.1):
        # One row per image and class: it is there, and it is found with enough confidence.
        expected = np.eye(2, dtype=int)[truth].ravel()
        accepted = (np.eye(2, dtype=int)[found] * (scores >= threshold)[:, None]).ravel()
        assert curve.f1(np.array([threshold]))[0] == pytest.approx(f1_score(expected, accepted, zero_division=0))


def f1_of(curve: Scored, threshold: float) -> float:
    accepted = [ok for score, ok in zip(curve.scores, curve.correct, strict=True) if score >= threshold]
    return 2 * sum(accepted) / (len(accepted) + curve.positives)


def plain_hits(found: Detections, truth: CocoTarget, classes: dict[int, int]) -> list[bool]:
    """Greedy matching, written out."""
    free, hits = list(range(len(truth))), []
    for box, cls in zip(found.boxes_xyxy, found.class_ids, strict=True):
        best, chosen = 0.5, None
        for k in free:
            if classes.get(int(cls), int(cls)) != truth.class_ids[k]:
                continue
            t = truth.boxes_xyxy[k]
            w = max(0.0, min(box[2], t[2]) - max(box[0], t[0]))
            h = max(0.0, min(box[3], t[3]) - max(box[1], t[1]))
            both = (box[2] - box[0]) * (box[3] - box[1]) + (t[2] - t[0]) * (t[3] - t[1]) - w * h
            if both > 0 and w * h / both >= best and (chosen is None or w * h / both > best):
                best, chosen = w * h / both, k
        hits.append(chosen is not None)
        if chosen is not None:
            free.remove(chosen)
    return hits


def test_detections_are_matched_like_a_plain_loop_and_the_threshold_restores_recall() -> None:
    rng = np.random.default_rng(1)
    images, correct, scores = [], [], []
    for _ in range(40):
        truth = rng.uniform(0, 80, (rng.integers(0, 5), 2))
        truth = np.hstack([truth, truth + rng.uniform(10, 30, truth.shape)])
        ids = rng.integers(0, 3, len(truth))
        pick = rng.integers(0, max(len(truth), 1), rng.integers(0, 8)) if len(truth) else np.zeros(0, int)
        boxes = truth[pick] + rng.normal(0, 3, (len(pick), 4))
        score = np.sort(rng.random(len(pick)))[::-1]
        # The network numbers its classes from 10.
        found = Detections(boxes, score, ids[pick] + 10)
        target = CocoTarget(truth, ids, np.zeros(len(ids), bool), np.zeros(len(ids)))
        image = seen(target, found)
        assert image is not None
        images.append(image)
        correct += plain_hits(found, target, {10: 0, 11: 1, 12: 2})
        scores += score.tolist()
    votes = class_votes(images)
    assert votes == {10: 0, 11: 1, 12: 2}
    curve = scored(images, votes)
    order = np.argsort(-np.array(scores), kind="stable")
    assert curve.correct.tolist() == np.array(correct)[order].tolist()
    for recall in (0.2, 0.5):
        threshold = curve.threshold_for_recall(recall)
        assert threshold is not None
        assert curve.at(threshold)["recall"] >= recall
        assert curve.at(np.nextafter(threshold, 2))["recall"] < recall
    assert curve.threshold_for_recall(1.01) is None
    assert curve.threshold_for_recall(0.0) is None
    assert curve.threshold_for_recall(1 / curve.positives) == curve.scores[curve.correct][0]
    best = max(f1_of(curve, score) for score in curve.scores)
    assert curve.at(curve.best_threshold())["f1"] == best
    crowded = replace(curve, scores=1 - (1 - curve.scores) / 1000)  # all of them from 0.999 on
    assert crowded.at(crowded.best_threshold())["f1"] == best
    assert thresholds([curve])[[0, -1]].tolist() == [0, 1]
    summed = replace(curve, scores=curve.scores * 7)  # coverage that is summed up is no probability
    assert thresholds([curve, summed])[-1] == summed.scores[0]
    for one in (curve, summed):
        kept = one.scores[one.scores >= 0.05]
        lefts, shares = one.histogram()
        step = (max(1.0, one.scores[0]) - 0.05) / 19
        inside = [(kept >= left).sum() - (kept >= left + step).sum() for left in lefts[:-1]]
        np.testing.assert_allclose(lefts, 0.05 + step * np.arange(19))
        np.testing.assert_allclose(shares[:-1] * len(kept), inside)
        assert shares.sum() == pytest.approx(1)
    assert scored([], {}).f1(np.array([0.5])).tolist() == [0.0]


def test_what_a_user_names_is_escaped() -> None:
    nasty = '<script>alert("1")</script>&'
    drawn = plots.scatter([(nasty, 1.0, 2.0)], nasty, nasty)
    drawn += plots.lines({nasty: ([0, 1], [1, 0])}, nasty, nasty, nasty)
    bodies = html.table([nasty], [[nasty]]) + html.paragraphs([nasty], nasty) + html.bars([(nasty, 1.0, nasty)], 1.0)
    text = html.page(nasty, nasty, [(nasty, drawn + bodies + html.listing(nasty))])
    assert "<script" not in text
    check_page(text)


@pytest.mark.parametrize("points", [[], [("a", float("nan"), 1.0)]])
def test_a_plot_of_nothing_is_left_out(points: list[tuple[str, float, float]]) -> None:
    assert plots.scatter(points, "x", "y") == ""
    assert "nan" not in plots.scatter([("a", 1.0, 2.0), *points], "x", "y").lower()


class TwoLanes:
    """A model that takes 10 ms per run, two at a time."""

    def __init__(self) -> None:
        self.session = self
        self.slots = 2
        self.threads: set[int] = set()

    def run(self, _feeds: Any) -> None:
        self.threads.add(threading.get_ident())
        time.sleep(0.01)


def test_throughput_is_that_of_overlapping_runs_and_latency_of_single_ones() -> None:
    model: Any = TwoLanes()
    speed = Timing(4)
    speed.round(model, {}, 0.2, 0)
    assert len(model.threads) >= 2
    assert speed.report()["latency_ms"]["p50"] == pytest.approx(10, rel=0.5)
    assert 1.3 < speed.throughput * 0.01 / 4 < 2.05


class MadeUpNvml:
    """Answers as NVML does."""

    used = 1000

    def nvmlDeviceGetMemoryInfo(self, _handle: Any, into: Any) -> int:
        ctypes.cast(into, ctypes.POINTER(ctypes.c_ulonglong * 3)).contents[2] = self.used
        return 0

    def nvmlDeviceGetPowerUsage(self, _handle: Any, into: Any) -> int:
        ctypes.cast(into, ctypes.POINTER(ctypes.c_uint)).contents.value = 250_000  # milliwatts
        return 0


def test_memory_is_the_peak_over_the_start_and_power_the_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    library = MadeUpNvml()
    monkeypatch.setattr(timing, "_nvml", lambda _gpu: (library, None))
    with timing.metered(0) as meter:
        library.used = 9000
        time.sleep(0.2)
        library.used = 4000
    assert (meter.memory_bytes, meter.watts) == (8000, 250.0)
    monkeypatch.setattr(timing, "_nvml", lambda _gpu: (None, None))
    with timing.metered(0) as blind:
        pass
    assert (blind.memory_bytes, blind.watts) == (None, None)


def test_a_segmentation_network_is_compared_with_pictures(shell: Shell, tmp_path: Path) -> None:
    data = write_masks(tmp_path / "data", test=6, calibration=8)
    palette = [
        {"seg_class": name, "label_id": index, "mapping_class": name, "rgb": [index, 0, 0]}
        for index, name in enumerate(("background", "orange", "blue", "brown"))
    ]
    segment = {"root_dir": str(data), "validation_split": "test", "batch_size": 4, "palette": palette}
    tree = content(tmp_path, "segformer", data / "images" / "calibration", segment={**segment, "label_transform": None})
    del tree["dataset"]["batch_size"]
    tree["gen_trt_engine"]["tensorrt"]["calibration"]["cal_batches"] = 2
    spec = write_spec(tmp_path / "spec.yaml", tree)
    assert shell("segformer", "compare", "-e", spec, "precisions=int8", "--json") == 0, shell.err
    report = json.loads(shell.out)
    assert report["metric"] == "Mean IOU"
    assert report["confidence"] is None
    assert report["per_class_of"] == "IoU"
    assert set(report["precisions"][2]["per_class"]) == {"background", "orange", "blue", "brown"}
    page = (tmp_path / "results" / "compare" / "compare.html").read_text()
    check_page(page)
    assert page.count("<img") == 4
    assert "No scores here" in page


def test_the_precisions_take_turns(shell: Shell, tmp_path: Path, digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[tuple[str, int]] = []

    def noted(self: Timing, model: OpenModel, *rest: Any) -> None:
        turns.append((Path(model.spec.evaluate.trt_engine).parent.name, self.batch))
        timed(self, model, *rest)

    timed = Timing.round
    monkeypatch.setattr(Timing, "round", noted)
    test = {"images_dir": str(digits / "test")}
    tree = content(tmp_path, "classification_pyt", digits / "calibration", root_dir=str(digits), test_dataset=test)
    spec = write_spec(tmp_path / "spec.yaml", tree)
    words = ("compare.precisions=fp32,fp16", "compare.batch_sizes=2,1", "compare.timing_seconds=0.01")
    assert shell("classification_pyt", "compare", "-e", spec, *words) == 0, shell.err
    assert turns == 2 * [(precision, batch) for batch in (2, 1) for precision in ("fp32", "fp16")]
