"""Streamed ranges equal ranges computed from all values at once; the entropy search equals the plain loop."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from scipy.stats import entropy

from nvidia_tao_deploy.calibration.histogram import entropy_amax, mse_amax, percentile_amax
from nvidia_tao_deploy.calibration.ranges import (
    Histogram,
    amaxes,
    collect,
    collect_minmax,
    float_activations,
    observe,
)
from nvidia_tao_deploy.errors import DataError, ModelError
from nvidia_tao_deploy.graph.ort import open_session


def small_model(weight_scale=1.0):
    rng = np.random.default_rng(0)
    weight = (weight_scale * rng.standard_normal((8, 3, 3, 3))).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 3, 12, 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", 8, 1, 1])],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def images(count, seed=1):
    rng = np.random.default_rng(seed)
    # sizes grow, so the ranges have to double several times
    return [(rng.standard_normal((1 + i % 3, 3, 12, 12)) * 1.5**i).astype(np.float32) for i in range(count)]


def all_values(model, batches, name):
    extended = type(model)()
    extended.CopyFrom(model)
    extended.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    session = open_session(extended)
    return np.concatenate([session.run([name], {"x": batch})[0].ravel() for batch in batches])


@pytest.mark.parametrize("name", ["c", "r"])
def test_minmax_equals_the_values(name):
    model, batches = small_model(), images(6)
    values = all_values(model, batches, name)
    feeds = [{"x": batch} for batch in batches]
    assert collect_minmax(model, feeds, [name])[name] == pytest.approx((values.min(), values.max()), rel=1e-5)
    assert collect(model, feeds, [name], "minmax")[name] == pytest.approx(np.abs(values).max(), rel=1e-5)


def test_streamed_histogram_equals_one_over_all_values():
    model, batches = small_model(), images(8)
    histogram = observe(model, [{"x": batch} for batch in batches], ["c", "x"], "entropy")["x"]
    values = np.abs(np.concatenate([batch.ravel() for batch in batches]))
    assert values.max() < histogram.limit <= 2 * values.max()
    assert np.log2(histogram.limit) % 1 == 0
    expected, _ = np.histogram(values, bins=len(histogram.counts), range=(0, histogram.limit))
    assert histogram.counts.tolist() == expected.tolist()


@pytest.mark.parametrize("seed", range(6))
def test_parts_in_any_order_give_the_histogram_of_the_whole(seed):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(3000) * 2.0 ** rng.integers(-130 if seed == 0 else -8, 9, 3000)
    edges = 2.0 ** rng.integers(-12, 10, 300)  # powers of two are bin edges and limits
    values = np.concatenate([values, edges, -edges, np.zeros(500)]).astype(np.float32)
    whole = Histogram()
    whole.add(values)
    expected, _ = np.histogram(np.abs(values.astype(float)), bins=2048, range=(0, whole.limit))
    assert whole.counts.tolist() == expected.tolist()
    for parts in (1, 2, 3, 7):
        merged = Histogram()
        for part in [*np.array_split(rng.permutation(values), parts), np.zeros(0), np.zeros(0, np.float32)]:
            histogram = Histogram()
            for batch in np.array_split(part, 5):
                histogram.add(batch)
            merged.merge(histogram)
        assert (merged.limit, merged.largest) == (whole.limit, whole.largest)
        assert merged.counts.tolist() == whole.counts.tolist()


@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile", "mse"])
def test_shares_of_the_batches_give_the_ranges_of_all(method):
    model, feeds = small_model(), [{"x": batch} for batch in images(7)]
    expected = collect(model, feeds, ["x", "c", "r"], method)
    for parts in (2, 3, 9):  # nine: some have no batch
        shares = [observe(model, feeds[i::parts], ["x", "c", "r"], method) for i in reversed(range(parts))]
        assert amaxes(shares, method) == expected


def plain_entropy(counts, limit, levels=128):
    """The published loop, with scipy's KL divergence; at most 1 % of the values are clipped."""
    hist = counts.astype(float)
    hist[0] = hist[1]
    best, amax = np.inf, limit
    for i in range(levels, len(hist) + 1):
        if hist[i:].sum() > 0.01 * hist.sum():
            continue
        p = hist[:i].copy()
        p[-1] += hist[i:].sum()
        q = np.zeros(i)
        group = np.arange(i) * levels // i
        for level in range(levels):
            members = (group == level) & (hist[:i] > 0)
            if members.any():
                q[members] = hist[:i][members].sum() / members.sum()
        if q.sum() == 0:
            continue
        divergence = entropy(p, q)
        if divergence < best - 1e-12:
            best, amax = divergence, i * limit / len(hist)
    return amax


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["normal", "relu", "heavy", "sparse", "uniform", "humps"])
def test_entropy_equals_the_plain_loop(kind, seed):
    rng = np.random.default_rng(seed)
    values = {
        "normal": lambda: np.abs(rng.standard_normal(20000)),
        "relu": lambda: np.maximum(rng.standard_normal(20000), 0),
        "heavy": lambda: np.abs(rng.standard_t(2, 20000)),
        "uniform": lambda: rng.random(20000),
        "humps": lambda: np.abs(np.concatenate([rng.normal(1, 0.2, 15000), rng.normal(5, 0.1, 600 * (seed + 1))])),
        "sparse": lambda: rng.choice([0.0, 0.1, 0.5, 3.0], 500),
    }[kind]()
    counts, edges = np.histogram(values, bins=512, range=(0, values.max()))
    assert entropy_amax(counts, edges[-1]) == pytest.approx(plain_entropy(counts, edges[-1]))


def test_entropy_does_not_clip_what_makes_a_comb():
    """Few distinct values: the published loop would clip 12 % of these grey levels and 55 % of the spikes."""
    rng = np.random.default_rng(0)
    tones = np.where(rng.random((1, 40000)) < 0.1, rng.uniform(150, 255, (3, 40000)), rng.normal(100, 10, (3, 40000)))
    grey = np.abs(np.rint(tones) - np.array([[103.939], [116.779], [123.68]]))
    for values in (grey, np.repeat([0.5, 1.1, 2.3, 2.9, 4.0, 5.0], [4000, 3000, 900, 500, 300, 200])):
        counts, edges = np.histogram(values, bins=2048, range=(0, values.max()))
        assert np.mean(values > entropy_amax(counts, edges[-1])) <= 0.01


def test_percentile_equals_numpy_within_a_bin():
    values = np.abs(np.random.default_rng(0).standard_normal(100000))
    counts, edges = np.histogram(values, bins=2048, range=(0, values.max()))
    for percentile in (50, 99, 99.9, 99.99, 100):
        expected = np.percentile(values, percentile)
        assert abs(percentile_amax(counts, edges[-1], percentile) - expected) <= 2 * edges[1]


def test_mse_is_the_best_of_a_direct_sweep():
    values = np.abs(np.random.default_rng(0).standard_t(3, 50000))
    limit = values.max()
    counts, _ = np.histogram(values, bins=2048, range=(0, limit))

    def error(amax):
        step = amax / 127
        return np.mean((np.minimum(np.rint(values / step), 127) * step - values) ** 2)

    best = min(error(limit * k / 256) for k in range(1, 257))
    assert error(mse_amax(counts, limit)) <= best * 1.02


def test_clipping_methods_ignore_an_outlier_and_minmax_does_not():
    histogram = Histogram()
    histogram.add(np.random.default_rng(0).standard_normal(200000).astype(np.float32))
    histogram.add(np.asarray([40.0], dtype=np.float32))
    assert histogram.amax("minmax") == 40
    assert max(histogram.amax("entropy"), histogram.amax("percentile")) < 10
    # One value of 40 weighs much in squared error: 200000 (a / 127)^2 / 12 + (40 - a)^2 is smallest at 19.7.
    assert histogram.amax("mse") == pytest.approx(19.7, abs=1)


def test_constant_and_tiny_tensors():
    zero = Histogram()
    zero.add(np.zeros((2, 3), dtype=np.float32))
    assert [zero.amax(m) for m in ("minmax", "entropy", "percentile", "mse")] == [0, 0, 0, 0]
    late = Histogram()
    late.add(np.zeros(10, dtype=np.float32))
    late.add(np.full(10, 3.0, dtype=np.float32))
    assert late.counts.sum() == 20
    assert late.amax("mse") == pytest.approx(3.0, rel=0.01)
    tiny = Histogram()
    tiny.add(np.full(5, 1e-30, dtype=np.float32))
    assert 0 < tiny.amax("entropy") <= 1.001e-30


def test_batching_does_not_change_ranges():
    model = small_model()
    data = np.concatenate(images(5))
    one = [{"x": data[i : i + 1]} for i in range(len(data))]
    for method in ("minmax", "entropy", "percentile", "mse"):
        expected = collect(model, one, ["r"], method)["r"]
        assert collect(model, [{"x": data}], ["r"], method)["r"] == pytest.approx(expected, rel=0.02)


def test_memory_does_not_grow_with_the_number_of_images():
    model = small_model()

    def peak(count):
        feeds = ({"x": np.full((4, 3, 12, 12), i % 7, dtype=np.float32)} for i in range(count))
        tracemalloc.start()
        collect(model, feeds, ["x", "c", "r"], "entropy")
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    peak(2)
    assert peak(200) < 1.1 * peak(5) + 100_000


def test_user_errors():
    model = small_model()
    feeds = [{"x": images(1)[0]}]
    with pytest.raises(DataError, match="no calibration images"):
        collect(model, [], ["r"], "entropy")
    with pytest.raises(ModelError, match="'nope'"):
        collect(model, feeds, ["nope"], "entropy")
    bad = [{"x": np.full((1, 3, 12, 12), np.nan, dtype=np.float32)}]
    for method in ("minmax", "entropy"):
        with pytest.raises(ModelError, match="'c' is NaN"):
            collect(model, bad, ["c"], method)


def test_progress_and_float_activations():
    seen = []
    collect(small_model(), [{"x": batch} for batch in images(4)], ["r"], "entropy", progress=seen.append)
    assert seen == [1, 2, 2, 1, 1]  # at most two samples at a time
    assert float_activations(small_model()) == ["x", "c", "r", "y"]
