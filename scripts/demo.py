"""`make demo`: the commands a user types, for three networks and every precision, on this repository's sample data."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "demo"
BIN = Path(sys.executable).parent
PRECISIONS = ("fp32", "fp16", "int8")
HEADLINE = {"classification_pyt": "top_k_accuracy", "detectnet_v2": "mAP", "rtdetr": "AP50"}


def main() -> int:
    """Run everything; the exit code is the first failing command's."""
    if not (BIN / "rtdetr").is_file():
        raise SystemExit(f"The commands are not installed beside {sys.executable}: run make demo, or pip install -e .")
    began = time.monotonic()
    say("Preparing the sample data under demo/data")
    subprocess.run(
        [sys.executable, "-m", "samples.data", "digits", "scenes", "--out", "demo/data"], cwd=ROOT, check=True
    )
    rows: list[dict[str, Any]] = []
    for network, metric in HEADLINE.items():
        for precision in PRECISIONS:
            engine = f"demo/engines/{network}_{precision}.engine"
            overrides = [f"gen_trt_engine.tensorrt.data_type={precision}", f"gen_trt_engine.trt_engine={engine}"]
            built = command(network, "gen_trt_engine", *overrides)
            row = {"network": network, "precision": precision, "engine": engine, "built": built}
            if precision != "fp16":
                row["result"] = command(network, "evaluate", f"evaluate.trt_engine={built['prepared_onnx']}")
                row["metric"] = f"{metric} {row['result'][metric]:.4f}"
            rows.append(row)
        onnx = rows[-1]["built"]["prepared_onnx"]
        command(network, "inference", f"inference.trt_engine={onnx}")
    print_table(rows)
    print("\nAnnotated pictures and label files:")
    for network in HEADLINE:
        print(f"  demo/results/{network}/trt_inference")
    print(f"\nEverything above took {time.monotonic() - began:.0f} s on this machine, without a GPU.")
    return 0


def command(network: str, action: str, *overrides: str) -> dict[str, Any]:
    """Run one command as a user would, show it, and return what it printed with --json."""
    words = [network, action, "-e", f"specs/{network}/{action}.yaml", *overrides]
    say(" ".join(words))
    done = subprocess.run([str(BIN / words[0]), *words[1:], "--json"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.stderr.write(done.stderr)
        raise SystemExit(done.returncode)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def print_table(rows: list[dict[str, Any]]) -> None:
    """network, precision, accuracy, images/s, file size and path, one line each."""
    header = ("network", "precision", "accuracy", "images/s", "engine size", "engine")
    lines = [header]
    for row in rows:
        result = row.get("result")
        lines.append(
            (
                row["network"],
                row["precision"],
                row.get("metric", "not evaluated"),
                f"{result['images_per_second']:.0f}" if result else "",
                f"{(ROOT / row['engine']).stat().st_size / 1024:.0f} KiB",
                row["engine"],
            )
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    print()
    for number, line in enumerate(lines):
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
        if number == 0:
            print("  ".join("-" * width for width in widths))
    print(
        "\nAccuracy and images/s: the prepared ONNX beside each engine, on ONNX Runtime (no GPU here to run engines)."
    )


def say(text: str) -> None:
    """What is about to run."""
    print(f"$ {text}" if " -e " in text else text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
