"""Which versions fit together: TensorRT, CUDA, driver, Python, compute capability, L4T and JetPack.

Sources: TensorRT support matrices and release notes per version, the wheels on PyPI, the JetPack release pages.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

PYTHON = ((3, 10), (3, 13))
TENSORRT_PACKAGES = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-cu11")
RTX_PACKAGES = ("tensorrt-rtx", "tensorrt-rtx-cu13", "tensorrt-rtx-cu12")
ORT_PACKAGES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-trt-rtx")
# Oldest driver branch that runs packages built for a CUDA major version.
DRIVER_BRANCH = {11: "450", 12: "535", 13: "580"}
FIRST_L4T_WITH_PYTHON = 36


@dataclass(frozen=True)
class TensorRTFacts:
    """A range of versions: newest Python with a wheel, oldest compute capability, CUDA of the package ``tensorrt``."""

    python: tuple[int, int]
    compute_capability: tuple[int, int]
    cuda: int


# First version of each range.
_TENSORRT = (
    ((11, 1), TensorRTFacts((3, 14), (7, 5), 13)),
    ((11, 0), TensorRTFacts((3, 13), (7, 5), 13)),
    ((10, 14), TensorRTFacts((3, 13), (7, 5), 13)),
    ((10, 5), TensorRTFacts((3, 13), (7, 5), 12)),
    ((10, 0), TensorRTFacts((3, 12), (7, 0), 12)),
    ((8, 6), TensorRTFacts((3, 11), (5, 0), 12)),
    ((0, 0), TensorRTFacts((3, 10), (3, 5), 11)),
)

# First L4T of each JetPack.
_JETPACK = (
    ((38, 4), "7.1"),
    ((38, 2), "7.0"),
    ((36, 5), "6.2.2"),
    ((36, 4, 4), "6.2.1"),
    ((36, 4, 3), "6.2"),
    ((36, 4), "6.1"),
    ((36, 3), "6.0"),
    ((36, 2), "6.0 DP"),
    ((35, 0), "5"),
    ((32, 0), "4"),
)


def number(version: str) -> tuple[int, ...]:
    """``"10.13.2.6"`` -> ``(10, 13, 2, 6)``; a suffix that is no number ends it."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else (0,)


def tensorrt_facts(version: str) -> TensorRTFacts:
    """What is known about the range that ``version`` is in."""
    return next(facts for first, facts in _TENSORRT if number(version) >= first)


def cuda_of(package: str, default: int) -> int:
    """CUDA major version of a package: by its ``-cuNN`` ending, else ``default``."""
    match = re.search(r"-cu(\d+)$", package)
    return int(match[1]) if match else default


def jetpack(l4t: str) -> str:
    """JetPack release of an L4T release such as ``36.4.3``; ``unknown`` outside the known range."""
    release = number(l4t)
    if release[0] > _JETPACK[0][0][0]:
        return "unknown (newer than this program)"
    return next((name for first, name in _JETPACK if release >= first), "unknown")
