"""How much of the machine the loop around the model uses, measured in one run on the same images.

    python -m benchmarks.pipeline --images 2000 --batch 16 --model samples/models/classification_pyt.onnx
    python -m benchmarks.pipeline --images 20000 --batch 64 --model resnet50 --precision fp16 --runtime engine
    python -m benchmarks.pipeline --model resnet50 --precision fp16 --runtime engine --session-only

Printed, in images/s, the best of ``--rounds`` rounds in which the measurements take turns:

    pixels      cv2.imdecode of the JPEG files on all cores, nothing else
    decode      the loop's workers alone on all cores, no model: files to the model's input, or to pixels where the GPU
                resizes and normalizes
    model       the session alone, on preloaded (pinned, where there is a GPU) tensors
    bare        a bare execution loop without our session: device-resident inputs on a GPU (--session-only)
    whole       ``evaluate``: loop and metric.update, first batch to last
    reference   Pillow, one thread, one image after the other decoded, then the model, then the metric
    ratio       whole / min(model, decode)
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import os
import platform
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from nvidia_tao_deploy.pipeline.stream import ring_depth
from nvidia_tao_deploy.pipeline.workers import Workers, worker_count
from nvidia_tao_deploy.transforms.on_gpu import pixel_rows

_DETAILS = ("images_evaluated", "runtime", "transform_on")
SIZE = (640, 480)
DISTINCT = 64  # pictures that are drawn; more images are copies, each a file of its own


def main() -> None:
    """Measure and print."""
    options = _arguments()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = _prepared_model(options, folder)
        figures: dict[str, Any] = {"machine": _machine(), "date": date.today().isoformat(), **vars(options)}
        if options.session_only:
            figures.update(session_only(model, options))
        else:
            figures.update(everything(model, options, folder))
    print(json.dumps(figures, indent=2, default=str))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--model", default="samples/models/classification_pyt.onnx", help="path, resnet50 or detector")
    parser.add_argument("--network", help="classification_pyt or rtdetr; else by the model's outputs")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "fp16"))
    parser.add_argument("--runtime", default="onnx", choices=("onnx", "engine"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--session-only", action="store_true", help="model alone against a bare execution loop")
    parser.add_argument("--no-reference", action="store_true", help="leave the reference loop out")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="spec overrides, e.g. runtime.*")
    parser.add_argument("--also", nargs="*", default=[], metavar="OVERRIDES", help="measure the loop again with these")
    parser.add_argument("--width", type=int, default=64, help="of resnet50 and detector: channels of the first stage")
    parser.add_argument("--input-size", type=int, default=0, help="of resnet50 (224) and detector (640)")
    return parser.parse_args()


def everything(model: Path, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All figures of the evaluate loop."""
    name = options.network or ("rtdetr" if "pred_logits" in _outputs(options, folder) else "classification_pyt")
    network = import_module(f"nvidia_tao_deploy.cv.{name}").NETWORK
    files = write_images(folder / "images", options.images, classes=_classes(options, folder))
    spec = _spec(name, model, folder, files, options)
    bench = Bench(network, spec, options)
    best: dict[str, float] = {}
    details: dict[str, Any] = {}
    for _ in range(options.rounds):
        for what in ("pixels", "decode", "model", "whole"):
            rate, detail = getattr(bench, what)()
            if rate > best.get(what, 0.0):
                best[what], details[what] = rate, detail
    if not options.no_reference:
        best["reference"] = bench.reference()
    bench.close()
    limit = min(best["model"], best["decode"])
    summary = {
        "network": name,
        "images_per_second": {key: round(value, 1) for key, value in best.items()},
        "ratio_whole_to_min_model_decode": round(best["whole"] / limit, 3),
        "ratio_whole_to_min_model_pixels": round(best["whole"] / min(best["model"], best["pixels"]), 3),
        "whole": details["whole"],
    }
    if "reference" in best:
        summary["gain_over_reference"] = round(best["whole"] / best["reference"], 2)
    for variant in options.also:
        summary[variant] = _variant(network, spec, options, variant)
    return summary


def _variant(network: Any, spec: dict[str, Any], options: argparse.Namespace, overrides: str) -> dict[str, Any]:
    """The loop of the same model and images with other settings."""
    bench = Bench(network, spec, argparse.Namespace(**{**vars(options), "set": [*options.set, *overrides.split()]}))
    rounds = [(bench.decode()[0], bench.whole()) for _ in range(options.rounds)]
    bench.close()
    decode, (whole, detail) = max(decode for decode, _ in rounds), max((r for _, r in rounds), key=lambda r: r[0])
    return {"decode": round(decode, 1), "whole": round(whole, 1), "detail": detail}


class Bench:
    """One network, one model and one set of images, measured part by part."""

    def __init__(self, network: Any, spec: dict[str, Any], options: argparse.Namespace) -> None:
        from nvidia_tao_deploy.actions.model import opened
        from nvidia_tao_deploy.spec.load import load_spec

        self.network, self.tree, self.options = network, spec, options
        self.spec = load_spec(network.spec, spec, options.set)
        self.dataset = network.dataset(self.spec, "evaluate")
        self._stack = contextlib.ExitStack()
        with contextlib.redirect_stdout(io.StringIO()):
            self.opened = self._stack.enter_context(opened(network, self.spec, "evaluate"))
        self.session, self.ports = self.opened.session, self.opened.ports
        self.batch = self.session.batch.clamp(min(options.batch, len(self.dataset)))
        self.cores = len(os.sched_getaffinity(0))

    def close(self) -> None:
        self._stack.close()

    def pixels(self) -> tuple[float, Any]:
        """Files to RGB pixels by OpenCV on all cores."""
        import cv2

        def one(path: Path) -> None:
            cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)

        return self._pooled([lambda p=self.dataset[i].path: one(p) for i in range(len(self.dataset))]), None

    def decode(self) -> tuple[float, Any]:
        """The workers alone, on all cores: files to what they hand on (pixels where a GPU does the rest)."""
        transform, inputs = self.opened.transform, list(self.ports.inputs.values())
        if getattr(self.session, "gpu", None) is not None and self.spec.runtime.transform_on != "cpu":
            rows = pixel_rows(transform, self.ports.inputs, self.dataset)
            transform, inputs = (transform, inputs) if rows is None else (rows, list(rows.inputs))
        count, batch = len(self.dataset), self.batch
        depth = ring_depth(inputs, batch, worker_count(0), 2, math.ceil(count / batch))
        runtime = self.spec.runtime
        with Workers(
            self.dataset, transform, inputs, batch, depth, count=runtime.workers, kind=runtime.worker_kind
        ) as pool:
            began = time.perf_counter()
            tickets: deque[Any] = deque()
            for number, start in enumerate(range(0, count, batch)):
                if len(tickets) == depth:
                    tickets.popleft().result()
                samples = [self.dataset[i] for i in range(start, min(start + batch, count))]
                tickets.append(pool.fill(number % depth, samples, start))
            for ticket in tickets:
                ticket.result()
            return count / (time.perf_counter() - began), None

    def _pooled(self, jobs: list[Callable[[], None]]) -> float:
        import cv2

        cv2.setNumThreads(1)
        chunks = [jobs[start : start + 8] for start in range(0, len(jobs), 8)]
        with ThreadPoolExecutor(self.cores) as pool:
            list(pool.map(lambda chunk: [job() for job in chunk], chunks[: self.cores]))
            began = time.perf_counter()
            list(pool.map(lambda chunk: [job() for job in chunk], chunks))
            return len(jobs) / (time.perf_counter() - began)

    def model(self) -> tuple[float, Any]:
        """The session on preloaded tensors, as many batches at once as it takes."""
        return session_rate(self.session, self.ports.inputs.values(), self.batch, len(self.dataset)), None

    def whole(self) -> tuple[float, Any]:
        """``evaluate``, spec to results.json."""
        from nvidia_tao_deploy.actions.evaluate import evaluate

        said = io.StringIO()
        began = time.perf_counter()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            results = evaluate(self.network, self.tree, self.options.set)
        detail = {k: v for k, v in results.items() if isinstance(v, dict) or k in _DETAILS}
        detail["seconds_with_start_and_metric"] = round(time.perf_counter() - began, 2)
        return results["images_per_second"], detail

    def reference(self) -> float:
        """One thread: Pillow decodes and resizes, numpy normalizes, then the model runs, then the metric."""
        from PIL import Image

        from nvidia_tao_deploy.transforms.transform import Geometry

        info = next(iter(self.ports.inputs.values()))
        height, width = (int(d) for d in info.shape[2:4])
        mean = np.array((0.485, 0.456, 0.406), np.float32)
        std = np.array((0.229, 0.224, 0.225), np.float32)
        metric = self.network.metric(self.spec, self.dataset)
        count = min(len(self.dataset), 20 * self.batch)
        began = time.perf_counter()
        for start in range(0, count, self.batch):
            samples = [self.dataset[i] for i in range(start, min(start + self.batch, count))]
            rows, geometries = [], []
            for sample in samples:
                with Image.open(sample.path) as image:
                    small = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
                    ratio = (width / image.width, height / image.height)
                    geometries.append(Geometry(image.size, (width, height), ratio))
                rows.append((np.asarray(small, np.float32) / 255 - mean) / std)
            array = np.stack(rows).transpose(0, 3, 1, 2).astype(info.dtype)
            if len(array) < self.session.batch.minimum:
                array = np.resize(array, (self.session.batch.minimum, *array.shape[1:]))
            raw = self.session.run({info.name: np.ascontiguousarray(array)})
            outputs = {role: raw[o.name][: len(samples)] for role, o in self.ports.outputs.items()}
            for sample, prediction in zip(samples, self.opened.decode(outputs, geometries), strict=True):
                metric.update(sample, prediction)
        return count / (time.perf_counter() - began)


def session_rate(session: Any, inputs: Any, batch: int, images: int) -> float:
    """Images/s of ``session.run`` on preloaded tensors, with as many runs at once as the session has slots."""
    from nvidia_tao_deploy.runtime.pinned import pinned

    slots = getattr(session, "slots", 1)
    rng = np.random.default_rng(0)
    feeds = []
    with contextlib.ExitStack() as stack:
        for _ in range(slots + 1):
            feed = {}
            for info in inputs:
                shape = (batch, *(d or 1 for d in info.shape[1:]))
                feed[info.name] = rng.random(shape, np.float32).astype(info.dtype)
                stack.enter_context(pinned(feed[info.name], getattr(session, "gpu", None)))
            feeds.append(feed)
        runs = max(8, min(images // batch, 400))
        with ThreadPoolExecutor(slots) as pool:
            list(pool.map(session.run, [feeds[i % len(feeds)] for i in range(2 * slots + 2)]))
            began = time.perf_counter()
            list(pool.map(session.run, [feeds[i % len(feeds)] for i in range(runs)]))
            return runs * batch / (time.perf_counter() - began)


def session_only(model: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Our session on preloaded tensors against the bare loop."""
    from nvidia_tao_deploy.runtime.open import open_session

    given = dict(entry.split("=", 1) for entry in options.set)
    session = open_session(model, cuda_graph=given.get("runtime.cuda_graph") == "true")
    batch = session.batch.clamp(options.batch)
    ours, bare = 0.0, 0.0
    images = max(options.images, 200 * batch) if getattr(session, "gpu", None) is not None else options.images
    for _ in range(options.rounds):
        ours = max(ours, session_rate(session, session.inputs, batch, images))
    session.close()
    for _ in range(options.rounds):
        bare = max(bare, _bare_engine(model, batch) if model.suffix == ".engine" else _bare_onnx(model, batch, images))
    return {"batch": batch, "session": round(ours, 1), "bare": round(bare, 1), "ratio": round(ours / bare, 3)}


def _bare_onnx(path: Path, batch: int, images: int) -> float:
    """ONNX Runtime's own IO binding; inputs and outputs stay where the provider wants them."""
    import onnxruntime as ort

    if hasattr(ort, "preload_dlls") and "CUDAExecutionProvider" in ort.get_available_providers():
        ort.preload_dlls()
    gpu = "CUDAExecutionProvider" in ort.get_available_providers()
    providers = ["CUDAExecutionProvider"] * gpu + ["CPUExecutionProvider"]
    session = ort.InferenceSession(str(path), providers=providers)
    where = "cuda" if gpu and session.get_providers()[0].startswith("CUDA") else "cpu"
    node = session.get_inputs()[0]
    kind = np.float16 if "float16" in node.type else np.float32
    shape = [batch, *(d if isinstance(d, int) else 1 for d in node.shape[1:])]
    binding = session.io_binding()
    value = ort.OrtValue.ortvalue_from_numpy(np.random.default_rng(0).random(shape, np.float32).astype(kind), where, 0)
    binding.bind_ortvalue_input(node.name, value)
    for output in session.get_outputs():
        binding.bind_output(output.name, where)
    runs = max(8, min(images // batch, 400))
    for _ in range(4):
        session.run_with_iobinding(binding)
    began = time.perf_counter()
    for _ in range(runs):
        session.run_with_iobinding(binding)
    return runs * batch / (time.perf_counter() - began)


def _bare_engine(path: Path, batch: int) -> float:
    """enqueue on device-resident buffers, one stream, one wait at the end."""
    from nvidia_tao_deploy.runtime import cuda
    from nvidia_tao_deploy.runtime.tensorrt import TensorRTSession

    session = TensorRTSession(path)  # for its context and device buffers only
    context, stream = session._lanes[0].context, session._lanes[0].stream
    for info in session.inputs:
        context.set_input_shape(info.name, (batch, *(d or 1 for d in info.shape[1:])))
    runs = 400
    try:
        for phase in (20, runs):
            stream.synchronize()
            began = time.perf_counter()
            for _ in range(phase):
                context.execute_async_v3(stream.handle)
            stream.synchronize()
        return runs * batch / (time.perf_counter() - began)
    finally:
        session.close()
        cuda.set_device(0)


def write_images(folder: Path, count: int, classes: int) -> list[Path]:
    """``count`` JPEG files of 640x480, quality 90, photograph-like; below one folder per class."""
    import cv2

    rng = np.random.default_rng(0)
    blobs = []
    for _ in range(min(count, DISTINCT)):
        coarse = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        fine = rng.normal(0, 8, (SIZE[1], SIZE[0], 3))
        picture = cv2.resize(coarse, SIZE, interpolation=cv2.INTER_CUBIC) + fine
        ok, blob = cv2.imencode(".jpg", np.clip(picture, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 90])
        assert ok
        blobs.append(blob.tobytes())
    files = []
    for index in range(count):
        path = folder / f"c{index % classes:04d}" / f"{index:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(blobs[index % len(blobs)])
        files.append(path)
    return files


def _spec(name: str, model: Path, folder: Path, files: list[Path], options: argparse.Namespace) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "results_dir": str(folder / "results"),
        "evaluate": {"trt_engine": str(model), "batch_size": options.batch},
        "runtime": {"workers": options.workers},
    }
    if name == "classification_pyt":
        classes = _classes(options, folder)
        (folder / "classes.txt").write_text("".join(f"c{i:04d}\n" for i in range(classes)))
        spec["dataset"] = {"root_dir": str(folder), "test_dataset": {"images_dir": str(folder / "images")}}
        spec["model"] = {"head": {"topk": [1]}}
        return spec
    content = {
        "images": [
            {"id": i, "file_name": str(path.relative_to(folder / "images")), "width": SIZE[0], "height": SIZE[1]}
            for i, path in enumerate(files)
        ],
        "annotations": [
            {"id": i + 1, "image_id": i, "category_id": i % 10, "bbox": [40, 40, 200, 150], "area": 30000, "iscrowd": 0}
            for i in range(len(files))
        ],
        "categories": [{"id": i, "name": f"class{i}"} for i in range(80)],
    }
    (folder / "truth.json").write_text(json.dumps(content))
    spec["dataset"] = {
        "test_data_sources": {"json_file": str(folder / "truth.json"), "image_dir": str(folder / "images")},
        "num_classes": 80,
        "remap_mscoco_category": False,
    }
    return spec


_SOURCE: dict[str, Path] = {}


def _prepared_model(options: argparse.Namespace, folder: Path) -> Path:
    """The ONNX file in the wanted precision, or the engine built from it."""
    import onnx

    if options.model == "resnet50":
        source = folder / "resnet50.onnx"
        onnx.save(convolutional(options.input_size or 224, options.width, detector=False), str(source))
    elif options.model == "detector":
        source = folder / "detector.onnx"
        onnx.save(convolutional(options.input_size or 640, options.width, detector=True), str(source))
    else:
        source = Path(options.model)
    _SOURCE["onnx"] = source
    if source.suffix != ".onnx":
        return source
    if options.runtime == "engine":
        return _engine(source, options, folder)
    if options.precision == "fp32":
        return source
    from nvidia_tao_deploy.graph.precision import cast_float

    cast = folder / "fp16.onnx"
    onnx.save(cast_float(onnx.load(str(source)), "fp16").model, str(cast))
    return cast


def _engine(source: Path, options: argparse.Namespace, folder: Path) -> Path:
    import onnx

    outputs = {output.name for output in onnx.load(str(source)).graph.output}
    name = options.network or ("rtdetr" if "pred_logits" in outputs else "classification_pyt")
    from nvidia_tao_deploy.actions.gen_trt_engine import gen_trt_engine

    batches = {"min_batch_size": 1, "opt_batch_size": options.batch, "max_batch_size": options.batch}
    spec = {
        "results_dir": str(folder / "build"),
        "gen_trt_engine": {
            "onnx_file": str(source),
            "trt_engine": str(folder / "model.engine"),
            "batch_size": -1,
            "tensorrt": {"data_type": options.precision, **batches},
        },
    }
    with contextlib.redirect_stdout(sys.stderr):
        network = import_module(f"nvidia_tao_deploy.cv.{name}").NETWORK
        gen_trt_engine(network, spec, [e for e in options.set if e.startswith("gen_trt_engine")])
    return folder / "model.engine"


def _outputs(_options: argparse.Namespace, _folder: Path) -> set[str]:
    import onnx

    source = _SOURCE["onnx"]
    if source.suffix != ".onnx":
        return set()
    return {output.name for output in onnx.load(str(source), load_external_data=False).graph.output}


def _classes(options: argparse.Namespace, folder: Path) -> int:
    import onnx

    source = _SOURCE["onnx"]
    if source.suffix != ".onnx" or "pred_logits" in _outputs(options, folder):
        return 1
    model = onnx.load(str(source), load_external_data=False)
    return int(model.graph.output[0].type.tensor_type.shape.dim[1].dim_value)


def convolutional(size: int, width: int, *, detector: bool) -> Any:
    """A network of ResNet-50's shape (3, 4, 6, 3 bottlenecks, expansion 4) with random weights, dynamic batch.

    The classifier ends in 1,000 scores; the detector in 300 queries of 80 classes and a box, from stride 32.
    """
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    nodes, weights = [], []

    def constant(array: Any) -> str:
        weights.append(numpy_helper.from_array(np.asarray(array), f"w{len(weights)}"))
        return weights[-1].name

    def node(kind: str, inputs: list[str], **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [f"t{len(nodes)}"], name=f"n{len(nodes)}", **attributes))
        return nodes[-1].output[0]

    def conv(x: str, cin: int, cout: int, kernel: int, stride: int = 1, gain: float = 2.0) -> str:
        w = rng.normal(0, (gain / (cin * kernel * kernel)) ** 0.5, (cout, cin, kernel, kernel)).astype(np.float32)
        pad = kernel // 2
        return node(
            "Conv",
            [x, constant(w), constant(rng.normal(0, 0.1, cout).astype(np.float32))],
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[pad] * 4,
        )

    def relu(x: str) -> str:
        return node("Relu", [x])

    x = relu(conv("input" if not detector else "inputs", 3, width, 7, 2))
    x = node("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    channels = width
    for stage, blocks in enumerate((3, 4, 6, 3)):
        inner = width << stage
        for block in range(blocks):
            stride = 2 if block == 0 and stage else 1
            y = relu(conv(x, channels, inner, 1))
            y = relu(conv(y, inner, inner, 3, stride))
            y = conv(y, inner, inner * 4, 1, gain=0.2)
            shortcut = x if block else conv(x, channels, inner * 4, 1, stride, gain=1.0)
            x = relu(node("Add", [y, shortcut]))
            channels = inner * 4
    value = helper.make_tensor_value_info
    image = value("inputs" if detector else "input", TensorProto.FLOAT, ["batch", 3, size, size])
    if detector:
        cells = (size // 32) ** 2
        queries = min(300, cells)

        def head(cout: int) -> str:
            y = node("Reshape", [conv(x, channels, cout, 1, gain=0.05), constant(np.array([0, cout, cells], np.int64))])
            y = node("Transpose", [y], perm=[0, 2, 1])
            bounds = [constant(np.array([v], np.int64)) for v in (0, queries, 1)]
            return node("Slice", [y, *bounds])

        nodes.append(helper.make_node("Identity", [head(80)], ["pred_logits"], name="logits"))
        nodes.append(helper.make_node("Sigmoid", [head(4)], ["pred_boxes"], name="boxes"))
        outputs = [
            value("pred_logits", TensorProto.FLOAT, ["batch", queries, 80]),
            value("pred_boxes", TensorProto.FLOAT, ["batch", queries, 4]),
        ]
    else:
        x = node("Flatten", [node("GlobalAveragePool", [x])], axis=1)
        w = rng.normal(0, channels**-0.5, (channels, 1000)).astype(np.float32)
        nodes.append(
            helper.make_node("Gemm", [x, constant(w), constant(np.zeros(1000, np.float32))], ["output"], name="fc")
        )
        outputs = [value("output", TensorProto.FLOAT, ["batch", 1000])]
    graph = helper.make_graph(nodes, "benchmark", [image], outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _machine() -> str:
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    from nvidia_tao_deploy.runtime.cuda import gpus

    cards = ", ".join(gpu.name for gpu in gpus())
    versions = f"Python {platform.python_version()}, numpy {np.__version__}"
    return f"{cpu}, {len(os.sched_getaffinity(0))} cores, {cards or 'no GPU'}, {versions}"


if __name__ == "__main__":
    main()
