"""The work of verify_gpu.sh: every sample network and precision, built and evaluated by the commands a user types."""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from threading import Lock
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from samples.networks import SAMPLE_NETWORKS  # noqa: E402 - the repository's own, from wherever this is run

# By how much an engine may differ from its prepared ONNX, as a share of the whole of the metric.
TOLERANCE = {"fp32": 0.0005, "fp16": 0.005, "int8": 0.005}


# One build at a time: builders that time kernels on the same GPU make each other several times as slow.
BUILDING = Lock()


def main() -> int:
    """Write ``verification.md`` and ``verification.json`` into the folder given; 1 if a row fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--networks", nargs="+", default=list(SAMPLE_NETWORKS), choices=list(SAMPLE_NETWORKS))
    parser.add_argument("--precisions", nargs="+", default=list(TOLERANCE), choices=list(TOLERANCE))
    parser.add_argument("--timeout", type=float, default=240, help="seconds for one build")
    parser.add_argument("--jobs", type=int, default=1, help="networks at a time (rates and build times then mean less)")
    parser.add_argument("--replays", action="store_true", help="also the tests of every network, by way of engines")
    parser.add_argument("--calibrators", action="store_true", help="compare with TensorRT's own calibrator (<= 10)")
    arguments = parser.parse_args()
    arguments.out = arguments.out.resolve()  # the commands run in the repository
    arguments.out.mkdir(parents=True, exist_ok=True)
    if not (ROOT / "demo" / "data").is_dir():
        subprocess.run([sys.executable, "-m", "samples.data", "--out", "demo/data"], cwd=ROOT, check=True)
    rows: list[dict[str, Any]] = []
    writing = Lock()

    def verify_network(network: str) -> None:
        for row in rows_of(network, arguments):
            with writing:
                rows.append(row)
                print(line_of(row), flush=True)
                write(arguments.out, sorted(rows, key=lambda row: arguments.networks.index(row["network"])))

    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(verify_network, arguments.networks))
    good = all(row["verdict"] == "ok" for row in rows)
    if arguments.replays:
        words = ["-m", "pytest", "-v", "-ra", "--through-engines", "tensorrt", "tests/cv", "tests/multimodal"]
        with (arguments.out / "replays.log").open("w") as log:
            good &= not subprocess.run([sys.executable, *words], cwd=ROOT, stdout=log, stderr=log).returncode
    return 0 if good else 1


def rows_of(network: str, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row per precision that is asked for and that the network has."""
    for precision in filter(SAMPLE_NETWORKS[network].precisions.__contains__, arguments.precisions):
        yield verify(network, precision, arguments.out, arguments.timeout)
    if SAMPLE_NETWORKS[network].lowered and "fp32" in arguments.precisions:
        yield verify(network, "fp32", arguments.out, arguments.timeout, lowered=True)
    if arguments.calibrators:
        yield from verify_calibrators(network, arguments.out, arguments.timeout)


def verify(network: str, precision: str, out: Path, timeout: float, *, lowered: bool = False) -> dict[str, Any]:
    """Build one engine, evaluate it and its prepared ONNX, and compare."""
    entry = SAMPLE_NETWORKS[network]
    command, metric = entry.command or network, entry.metric
    label = f"{precision}, plugins lowered" if lowered else precision
    engine = out / "engines" / f"{network}_{precision}{'_lowered' * lowered}.engine"
    row: dict[str, Any] = {"network": network, "precision": label, "metric": metric}
    with BUILDING:
        began = time.monotonic()
        built = run(
            command, "gen_trt_engine", timeout, f"gen_trt_engine.tensorrt.plugins={'lower' if lowered else 'auto'}",
            f"gen_trt_engine.onnx_file=samples/models/{network}.onnx",
            f"gen_trt_engine.trt_engine={engine}", f"gen_trt_engine.tensorrt.data_type={precision}",
            f"gen_trt_engine.timing_cache={out / 'engines' / network}.timing",
            "gen_trt_engine.tensorrt.runtime=tensorrt", f"results_dir={out / 'results' / network}", *entry.overrides,
        )  # fmt: skip
        row["build_seconds"] = time.monotonic() - began
    if isinstance(built, str):
        return {**row, "verdict": f"not built: {built}"}
    row.update(runtime=built["runtime"], counts=built["counts"], engine_bytes=built["engine_bytes"])
    for kind, model in (("engine", built["engine"]), ("onnx", built["prepared_onnx"])):
        measured = run(
            command, "evaluate", 300, f"evaluate.trt_engine={model}", f"results_dir={out / 'results' / network}",
            *entry.overrides, *(["runtime.providers=[cpu]"] if kind == "onnx" else []),
        )  # fmt: skip
        if isinstance(measured, str):
            return {**row, "verdict": f"{kind} not evaluated: {measured}"}
        row[kind] = measured[metric]
        row[f"{kind}_images_per_second"] = measured["images_per_second"]
    difference = abs(row["engine"] - row["onnx"]) / entry.whole
    within = difference <= TOLERANCE[precision]
    return {**row, "verdict": "ok" if within else f"differs by {difference:.4f}, allowed {TOLERANCE[precision]}"}


def verify_calibrators(network: str, out: Path, timeout: float) -> list[dict[str, Any]]:
    """TensorRT's own calibrator against ours on the same images, and its cache turned into Q/DQ."""
    entry = SAMPLE_NETWORKS[network]
    command, metric = entry.command or network, entry.metric
    cache = out / "engines" / f"{network}.cache"
    ways = {
        "int8, own calibrator": ["gen_trt_engine.tensorrt.calibration.mode=implicit"],
        "int8, its cache as Q/DQ": [],
        "int8, our calibration": None,
    }
    rows: list[dict[str, Any]] = []
    for label, overrides in ways.items():
        engine = out / "engines" / f"{network}_{len(rows)}_calibrator.engine"
        began = time.monotonic()
        if overrides is not None:
            overrides = [*overrides, f"gen_trt_engine.tensorrt.calibration.cal_cache_file={cache}"]
        built = run(
            command, "gen_trt_engine", timeout,
            f"gen_trt_engine.onnx_file=samples/models/{network}.onnx", f"gen_trt_engine.trt_engine={engine}",
            "gen_trt_engine.tensorrt.data_type=int8", "gen_trt_engine.tensorrt.runtime=tensorrt",
            f"results_dir={out / 'results' / network}", *entry.overrides, *(overrides or []),
        )  # fmt: skip
        row: dict[str, Any] = {"network": network, "precision": label, "metric": metric}
        row["build_seconds"] = time.monotonic() - began
        if isinstance(built, str):
            rows.append({**row, "verdict": f"not built: {built}"})
            continue
        row.update(runtime=built["runtime"], counts=built["counts"])
        results = out / "results" / network
        measured = run(
            command, "evaluate", 300, f"evaluate.trt_engine={engine}", f"results_dir={results}", *entry.overrides
        )
        if isinstance(measured, str):
            rows.append({**row, "verdict": f"not evaluated: {measured}"})
            continue
        row["engine"] = measured[metric]
        base = rows[0].get("engine") if rows else measured[metric]
        difference = abs(row["engine"] - base) if base is not None else float("nan")
        row["verdict"] = "ok" if difference <= TOLERANCE["int8"] else f"differs by {difference:.4f} from own calibrator"
        rows.append(row)
    return rows


def run(command: str, action: str, timeout: float, *overrides: str) -> Any:
    """The command's JSON result, or in a string why there is none."""
    words = [sys.executable, "-m", "nvidia_tao_deploy.cli.main", command, action]
    words += ["-e", f"specs/{command}/{action}.yaml", *overrides, "--json"]
    try:
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return f"no end after {timeout:.0f} s"
    if done.returncode:
        print(done.stderr[-3000:], file=sys.stderr)
        return next((line for line in done.stderr.splitlines() if "rror" in line), f"exit {done.returncode}")
    return json.loads(done.stdout)


def line_of(row: dict[str, Any]) -> str:
    """One row of the table."""
    counts = {name: count for name, count in row.get("counts", {}).items() if name != "total"}
    cells = [
        row["network"],
        row["precision"],
        ", ".join(f"{name} {count}" for name, count in counts.items()),
        f"{row['build_seconds']:.0f} s",
        f"{row['metric']} {row['engine']:.4f}" if "engine" in row else "",
        f"{row['onnx']:.4f}" if "onnx" in row else "",
        row["verdict"],
    ]
    return "| " + " | ".join(cells) + " |"


def write(out: Path, rows: list[dict[str, Any]]) -> None:
    """The table as Markdown, and the same as JSON."""
    runtime = next((row["runtime"] for row in rows if "runtime" in row), "no TensorRT")
    gpu = subprocess.run(
        ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"], capture_output=True, text=True
    ).stdout.strip()
    text = [
        f"{date.today()}, {runtime}, {gpu}, Python {platform.python_version()}, `scripts/verify_gpu.sh`:",
        "",
        "| network | precision | convolutions and matmuls | build | from the engine | prepared ONNX, CPU | verdict |",
        "|---|---|---|---|---|---|---|",
        *[line_of(row) for row in rows],
    ]
    (out / "verification.md").write_text("\n".join(text) + "\n")
    (out / "verification.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    sys.exit(main())
