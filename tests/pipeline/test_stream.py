"""The loop over batches: order, the short last batch, padding, skipping, and how it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.errors import DataError, SpecError
from nvidia_tao_deploy.network import Ports
from nvidia_tao_deploy.pipeline.stream import Tally, calibration_batches, run_numbered, run_stream
from nvidia_tao_deploy.runtime.session import BatchLimits, TensorInfo
from nvidia_tao_deploy.transforms.transform import Geometry

IN = TensorInfo("images", (None, 2), np.dtype(np.float32))
OUT = TensorInfo("doubled", (None, 2), np.dtype(np.float32))
PORTS = Ports({"images": IN}, {"result": OUT})
GEOMETRY = Geometry((1, 1), (1, 1), (1.0, 1.0))


class Numbers:
    """Sample i holds the number i; ``broken`` ones cannot be read."""

    root = None

    def __init__(self, count: int, broken: tuple[int, ...] = ()) -> None:
        self.count, self.broken = count, broken

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        return Sample(index, (Path(f"{index}.png"),), meta={"broken": index in self.broken})


class Fill:
    """Writes the sample's id; late samples of a batch finish first, to show that order does not depend on time."""

    def __init__(self, delay: float = 0.0) -> None:
        self.delay = delay

    def __call__(self, sample: Sample, out: Mapping[str, Any]) -> Geometry:
        if sample.meta["broken"]:
            raise DataError("truncated file", where=str(sample.path))
        time.sleep(self.delay * (7 - int(sample.id) % 7))
        out["images"][...] = sample.id
        return GEOMETRY

    def describe(self) -> dict[str, Any]:
        return {}


class Doubler:
    inputs: tuple[TensorInfo, ...] = (IN,)
    outputs, device = (OUT,), "test"

    def __init__(self, batch: BatchLimits | None = None) -> None:
        self.batch = batch or BatchLimits()
        self.sizes: list[int] = []

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        array = feeds["images"]
        self.sizes.append(len(array))
        return {"doubled": array * 2}

    def close(self) -> None: ...


def first_values(outputs: Mapping[str, Any], geometries: Any) -> list[float]:
    assert len(outputs["result"]) == len(geometries)
    return [float(value) for value in outputs["result"][:, 0]]


def collect(dataset: Numbers, session: Doubler, **more: Any) -> list[tuple[int, float]]:
    arguments: dict[str, Any] = {"batch_size": 4, "workers": 3, **more}
    transform = arguments.pop("transform", Fill())
    stream = run_stream(dataset, transform, session, PORTS, first_values, **arguments)
    return [(int(sample.id), value) for sample, value in stream]


@pytest.mark.parametrize("count", [1, 3, 4, 5, 8, 23])
@pytest.mark.parametrize("batch", [1, 4, 50])
def test_every_image_counts_in_the_datasets_order(count: int, batch: int) -> None:
    session, tally = Doubler(), Tally()
    got = collect(Numbers(count), session, batch_size=batch, transform=Fill(0.0005), tally=tally)
    assert got == [(i, 2.0 * i) for i in range(count)]
    assert sum(session.sizes) == count
    assert max(session.sizes) <= batch
    assert tally.images == count
    assert len(tally.latencies) == len(session.sizes)


def test_a_fixed_batch_model_gets_full_batches_and_its_padding_is_dropped() -> None:
    session = Doubler(BatchLimits(8, 8))
    assert collect(Numbers(11), session) == [(i, 2.0 * i) for i in range(11)]
    assert session.sizes == [8, 8]


def test_a_session_that_wants_whole_batches_gets_them_and_the_spare_rows_are_dropped() -> None:
    session = Doubler()
    session.whole_batches = True  # type: ignore[attr-defined]
    assert collect(Numbers(11, (4, 9)), session) == [(i, 2.0 * i) for i in range(11) if i not in (4, 9)]
    assert session.sizes == [4, 4, 4]
    session.sizes.clear()
    assert len(collect(Numbers(3), session, batch_size=8)) == 3
    assert session.sizes == [3]  # no more than there are


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize(
    ("count", "inputs", "warmed"),
    [
        (33, [((None, 2, 1, 1), "f4")], 1),
        (33, [((None, 2, 1, 1), "f4"), ((None, 3, 8, 8), "f2")], 1),
        (32, [((None, 2, 1, 1), "f4")], 0),
        (33, [((None, 2), "f4")], 0),
        (33, [((None, 2, None, 1), "f4")], 0),
        (33, [((None, 2, 1, 1), "i4")], 0),
        (33, [((None, 2, 1, 1), "f4"), ((None,), "i4")], 0),
    ],
)
def test_a_gpu_runs_black_images_while_the_first_ones_of_a_longer_run_are_read(
    count: int, inputs: list[Any], warmed: int, fails: bool
) -> None:
    """What comes of them counts for nothing, not even as a failure; other inputs may not take zeros."""
    zeros, names = [], ("images", "more")
    infos = tuple(TensorInfo(name, shape, np.dtype(kind)) for name, (shape, kind) in zip(names, inputs, strict=False))

    class OnGpu(Doubler):
        gpu = 0

        def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
            if not feeds["images"].any() and len(feeds["images"]) == 4:
                zeros.append(len(self.sizes))
                if fails:
                    raise ValueError("a model that cannot take zeros")
                return {"doubled": feeds["images"] + 9}
            return super().run(feeds)

    session, tally = OnGpu(), Tally()
    session.inputs = infos
    assert collect(Numbers(count), session, tally=tally) == [(i, 2.0 * i) for i in range(count)]
    assert zeros == [0] * warmed
    assert len(tally.latencies) == len(session.sizes) == -(-count // 4)


def test_a_batch_above_the_models_maximum_is_brought_within_it() -> None:
    session = Doubler(BatchLimits(1, 2))
    assert len(collect(Numbers(5), session, batch_size=64)) == 5
    assert session.sizes == [2, 2, 1]


@pytest.mark.parametrize("broken", [(0,), (3,), (4, 5, 6, 7), (0, 1, 2, 9)])
def test_unreadable_images_are_skipped_counted_and_named(broken: tuple[int, ...]) -> None:
    tally = Tally()
    got = collect(Numbers(10, broken), Doubler(), tally=tally)
    assert got == [(i, 2.0 * i) for i in range(10) if i not in broken]
    assert tally.skipped == [(f"{i}.png", "truncated file") for i in broken]


def test_strict_makes_an_unreadable_image_an_error() -> None:
    with pytest.raises(DataError, match=r"2\.png: truncated file"):
        collect(Numbers(10, (2,)), Doubler(), strict=True)


def test_no_readable_image_at_all_is_an_error_naming_the_first() -> None:
    with pytest.raises(DataError, match=r"none of the images could be read.*0\.png: truncated"):
        collect(Numbers(2, (0, 1)), Doubler())


def test_an_error_in_the_model_ends_the_run_and_leaves_no_thread() -> None:
    class Failing(Doubler):
        def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
            if len(self.sizes) == 2:
                raise RuntimeError("device lost")
            return super().run(feeds)

    before = set(threading.enumerate())
    with pytest.raises(RuntimeError, match="device lost"):
        collect(Numbers(40), Failing(), transform=Fill(0.001))
    deadline = time.monotonic() + 2
    while set(threading.enumerate()) - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not set(threading.enumerate()) - before


def test_a_consumer_that_stops_early_stops_the_workers() -> None:
    before = set(threading.enumerate())
    stream = run_stream(Numbers(1000), Fill(0.001), Doubler(), PORTS, first_values, batch_size=4)
    assert int(next(stream)[0].id) == 0
    stream.close()
    deadline = time.monotonic() + 2
    while set(threading.enumerate()) - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not set(threading.enumerate()) - before


def test_calibration_batches_leave_out_unreadable_images() -> None:
    samples = [Numbers(7, (1, 6))[i] for i in range(7)]
    batches = list(calibration_batches(samples, Fill(), (IN,), 3, strict=False))
    assert [batch["images"][:, 0].tolist() for batch in batches] == [[0, 2], [3, 4, 5]]


def test_images_of_another_size_than_annotated_are_named() -> None:
    class Annotated(Numbers):
        def __getitem__(self, index: int) -> Sample:
            sizes = {0: {"annotated_size": (1, 1)}, 1: {"annotated_size": (800, 600)}}
            sample = super().__getitem__(index)
            return Sample(sample.id, sample.paths, meta={**sample.meta, **sizes.get(index, {})})

    tally = Tally()
    list(run_stream(Annotated(3), Fill(), Doubler(), PORTS, first_values, batch_size=2, tally=tally))
    assert tally.resized == [("1.png", "1x1, annotated as 800x600")]


def test_a_transform_on_the_gpu_is_refused_where_there_is_none() -> None:
    with pytest.raises(SpecError, match="the model does not run on a GPU"):
        list(
            run_numbered(
                Numbers(2), Fill(), Doubler(), PORTS, first_values, batch_size=1, transform_on="gpu", tally=Tally()
            )
        )
