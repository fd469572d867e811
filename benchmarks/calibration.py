"""Calibration speed and memory against onnxruntime.quantization's own calibrators, same model, same batches, one run.

    python benchmarks/calibration.py [--model m.onnx] [--images 128] [--batch 8] [--size 128]

Every case runs in its own process. Time is that of reading the batches and computing the ranges, without imports;
memory is the rise of the process's peak above what it held before calibration began. ONNX Runtime's calibrators run
with their default settings on the inputs and outputs of the operators that get quantized.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

METHODS = ("minmax", "entropy", "percentile")
QUANTIZED_OPS = ["Conv", "Gemm", "MatMul", "Add"]
FASTER, SMALLER = 2.0, 4.0


def main() -> int:
    """Run all cases and print the table; exit code 1 when the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="an FP32 ONNX model with one image input (default: a residual CNN)")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=128, help="height and width where the model leaves them open")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(run_case(options)))
        return 0
    with tempfile.TemporaryDirectory(prefix="calibration_") as folder:
        model = options.model
        if model is None:
            model = Path(folder) / "residual_cnn.onnx"
            save_residual_cnn(model)
        return compare(options, model)


def compare(options: argparse.Namespace, model: Path) -> int:
    """Run every case on ``model`` and print one line per method."""
    print(f"{model.name}, {options.images} images in batches of {options.batch}")
    print(f"{'method':<12}{'images/s':>10}{'(ORT)':>9}{'ratio':>8}{'peak MiB':>12}{'(ORT)':>9}{'ratio':>8}  goal")
    missed = 0
    for method in METHODS:
        ours, theirs = (measure(options, model, f"{who}:{method}") for who in ("ours", "ort"))
        speed = theirs["seconds"] / ours["seconds"]
        memory = theirs["mib"] / max(ours["mib"], 0.1)
        met = speed >= 1 and memory >= 1 and (speed >= FASTER or memory >= SMALLER)
        missed += not met
        rates = (options.images / ours["seconds"], options.images / theirs["seconds"])
        print(
            f"{method:<12}{rates[0]:>10.1f}{rates[1]:>9.1f}{speed:>7.1f}x"
            f"{ours['mib']:>12.1f}{theirs['mib']:>9.1f}{memory:>7.1f}x  {'met' if met else 'MISSED'}"
        )
    print(f"goal: {FASTER:.0f}x faster or {SMALLER:.0f}x less memory, neither worse")
    return 1 if missed else 0


def measure(options: argparse.Namespace, model: Path, case: str) -> dict[str, float]:
    """One case in a fresh process."""
    command = [sys.executable, __file__, "--case", case, "--model", str(model)]
    for name in ("images", "batch", "size"):
        command += [f"--{name}", str(getattr(options, name))]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    result: dict[str, float] = json.loads(output.splitlines()[-1])
    return result


def run_case(options: argparse.Namespace) -> dict[str, float]:
    """Seconds and MiB of one calibrator; runs in the child process."""
    import onnx

    who, method = options.case.split(":")
    model = onnx.load(options.model)
    feed = model.graph.input[0]
    shape = [dim.dim_value or options.size for dim in feed.type.tensor_type.shape.dim]
    batches = image_batches(feed.name, shape[1:], options.images, options.batch)
    calibrate = prepare_ours(model, method) if who == "ours" else prepare_ort(options.model, method)
    before = peak_mib()
    started = time.perf_counter()
    ranges = calibrate(batches)
    seconds = time.perf_counter() - started
    assert ranges > 0
    return {"seconds": seconds, "mib": peak_mib() - before}


def prepare_ours(model: Any, method: str) -> Any:
    """Our calibration as a function of the batches, imports done."""
    import onnxruntime

    from nvidia_tao_deploy.calibration.ranges import collect
    from nvidia_tao_deploy.graph.quantize import quantizable_tensors

    tensors = quantizable_tensors(model)
    assert onnxruntime.get_available_providers()
    return lambda batches: len(collect(model, batches, tensors, method))


def prepare_ort(path: Path, method: str) -> Any:
    """ONNX Runtime's calibrator as a function of the batches, imports done."""
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod
    from onnxruntime.quantization.calibrate import create_calibrator

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self, batches: Iterator[dict[str, Any]]) -> None:
            self.batches = batches

        def get_next(self) -> dict[str, Any] | None:
            return next(self.batches, None)

    kinds = {
        "minmax": CalibrationMethod.MinMax,
        "entropy": CalibrationMethod.Entropy,
        "percentile": CalibrationMethod.Percentile,
    }

    def calibrate(batches: Iterator[dict[str, Any]]) -> int:
        with tempfile.TemporaryDirectory() as folder:
            augmented = str(Path(folder) / "augmented.onnx")
            calibrator = create_calibrator(path, QUANTIZED_OPS, augmented, kinds[method])
            calibrator.collect_data(Reader(batches))
            return len(calibrator.compute_data().data)

    return calibrate


def image_batches(name: str, shape: list[int], count: int, batch: int) -> Iterator[dict[str, np.ndarray]]:
    """Smooth images in [0, 1]: coarse seeded noise enlarged, so that activations look like those of pictures."""
    rng = np.random.default_rng(0)
    channels, height, width = shape
    factor = 8
    for start in range(0, count, batch):
        size = min(batch, count - start)
        coarse = rng.random((size, channels, -(-height // factor), -(-width // factor)), dtype=np.float32)
        yield {name: np.kron(coarse, np.ones((factor, factor), dtype=np.float32))[..., :height, :width].copy()}


def peak_mib() -> float:
    """Peak resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def save_residual_cnn(path: Path, blocks: int = 8, channels: int = 32) -> None:
    """A stem of stride 2 and residual blocks, 3 input channels, dynamic batch, height and width."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    nodes, weights = [], []

    def conv(source: str, name: str, cin: int, cout: int, stride: int = 1) -> str:
        weight = rng.standard_normal((cout, cin, 3, 3)) * (2 / (9 * cin)) ** 0.5
        weights.append(numpy_helper.from_array(weight.astype(np.float32), f"{name}.weight"))
        weights.append(numpy_helper.from_array(np.zeros(cout, dtype=np.float32), f"{name}.bias"))
        attributes = {"pads": [1] * 4, "strides": [stride] * 2}
        nodes.append(helper.make_node("Conv", [source, f"{name}.weight", f"{name}.bias"], [name], name, **attributes))
        return name

    def simple(op: str, sources: list[str], name: str) -> str:
        nodes.append(helper.make_node(op, sources, [name], name))
        return name

    x = simple("Relu", [conv("images", "stem", 3, channels, 2)], "stem_relu")
    for i in range(blocks):
        stride = 2 if i == blocks // 2 else 1
        y = simple("Relu", [conv(x, f"b{i}a", channels, channels, stride)], f"b{i}a_relu")
        y = conv(y, f"b{i}b", channels, channels)
        skip = conv(x, f"b{i}s", channels, channels, 2) if stride == 2 else x
        x = simple("Relu", [simple("Add", [y, skip], f"b{i}_add")], f"b{i}_relu")
    x = simple("Flatten", [simple("GlobalAveragePool", [x], "pooled")], "flat")
    weights.append(numpy_helper.from_array(rng.standard_normal((channels, 10)).astype(np.float32), "head.weight"))
    simple("MatMul", [x, "head.weight"], "logits")
    graph = helper.make_graph(
        nodes,
        "residual_cnn",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, "height", "width"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


if __name__ == "__main__":
    raise SystemExit(main())
