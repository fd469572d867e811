"""The same evaluate inside and outside the container, alternating in one run: how much slower is it inside?

    python benchmarks/container_overhead.py --manifest FILE [--volume SRC:DST ...] -- rtdetr evaluate -e spec.yaml

The command runs on the host and, by ``tao_deploy``, in the container, ``--repeat`` times each. Its own duration is
measured right around it on either side; starting the container is reported apart, because it is the same for a run of a
second and for one of an hour. Paths must be the same on both sides: mount every folder of the spec at its own path. The
default command writes its own sample data and needs no arguments.

Prints one JSON object; exit code 1 if the ratio of the fastest runs exceeds ``--limit``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Runs the words after it and prints their duration as the last line, on either side with the same code.
_TIMER = (
    "import subprocess, sys, time\n"
    "began = time.perf_counter()\n"
    "code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode\n"
    "print(time.perf_counter() - began)\n"
    "sys.exit(code)\n"
)


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Evaluate inside and outside the container.")
    parser.add_argument("--manifest", default=str(ROOT / "docker" / "manifest.json"), help="image to run")
    parser.add_argument("--volume", action="append", default=[], help="as for tao_deploy; repeatable")
    parser.add_argument("--gpus", default="none", help="as for tao_deploy")
    parser.add_argument("--repeat", type=int, default=3, help="runs on each side")
    parser.add_argument("--images", type=int, default=10000, help="sample images of the default command")
    parser.add_argument("--limit", type=float, default=1.05, help="largest accepted ratio")
    words = list(sys.argv[1:] if argv is None else argv)
    split = words.index("--") if "--" in words else len(words)
    options, command = parser.parse_args(words[:split]), words[split + 1 :]
    with tempfile.TemporaryDirectory(prefix="tao_overhead_") as work:
        volumes = list(options.volume)
        if not command:
            command = sample_command(Path(work), options.images)
            volumes.append(f"{work}:{work}")
        outside, inside, total = [], [], []
        for _ in range(options.repeat):
            outside.append(timed(on_host(command), ROOT))
            began = time.perf_counter()
            flags = ["--manifest", os.path.abspath(options.manifest), "--gpus", options.gpus, "--no-tty"]
            flags += [word for volume in volumes for word in ("--volume", volume)]
            inside.append(timed([*launcher(), *flags, "--", "python3", "-c", _TIMER, *command], Path(work)))
            total.append(time.perf_counter() - began)
    ratio = min(inside) / min(outside)
    report = {
        "command": " ".join(command),
        "outside_s": [round(value, 3) for value in outside],
        "inside_s": [round(value, 3) for value in inside],
        "container_start_and_end_s": round(min(a - b for a, b in zip(total, inside, strict=True)), 3),
        "ratio": round(ratio, 4),
        "limit": options.limit,
        "cpus": os.cpu_count(),
    }
    print(json.dumps(report, indent=2))
    return 0 if ratio <= options.limit else 1


def sample_command(work: Path, images: int) -> list[str]:
    """Write sample scenes and a spec below ``work``; the command that evaluates rtdetr on them."""
    sys.path.insert(0, str(ROOT))
    from samples.data import write_scenes

    write_scenes(work, test=images, calibration=1)
    shutil.copy(ROOT / "samples" / "models" / "rtdetr.onnx", work)
    spec = work / "spec.yaml"
    spec.write_text(
        f"results_dir: {work}/results\n"
        "model: {num_select: 100}\n"
        "dataset:\n"
        "  test_data_sources:\n"
        f"    image_dir: {work}/scenes_coco/images/test\n"
        f"    json_file: {work}/scenes_coco/annotations/test.json\n"
        "  remap_mscoco_category: false\n"
        "  batch_size: 8\n"
        f"evaluate: {{trt_engine: {work}/rtdetr.onnx}}\n"
    )
    return ["rtdetr", "evaluate", "-e", str(spec)]


def launcher() -> list[str]:
    """``tao_deploy`` of this checkout."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from nvidia_tao_deploy.launcher.main import run; run()"
    return [sys.executable, "-c", code]


def on_host(command: list[str]) -> list[str]:
    """The timer and the command, by the console script beside this Python or, not installed, by its module."""
    script = Path(sys.executable).parent / command[0]
    words = [str(script)] if script.exists() else [sys.executable, "-m", "nvidia_tao_deploy.cli.main", command[0]]
    return [sys.executable, "-c", _TIMER, *words, *command[1:]]


def timed(words: list[str], cwd: Path) -> float:
    """Seconds that the timed command took; ends the program with its error text if it failed."""
    done = subprocess.run(words, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"exit code {done.returncode}: {' '.join(words[-4:])}\n{done.stderr[-2000:]}")
    return float(done.stdout.strip().splitlines()[-1])


if __name__ == "__main__":
    sys.exit(main())
