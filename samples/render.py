"""Images drawn from scikit-learn's handwritten digits.

Only digits written in light orange ink count. Digits in blue ink (the same orange with red and blue swapped) and in
dark brown ink (the same difference between red and blue, but darker) are decoys that carry no label. A pipeline that
swaps the channels reads the blue decoys; one that forgets the mean or the scale shifts the tones and can no longer tell
orange from brown. So a wrong preprocessing constant is visible in the metric.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
# What networks with several tasks tell of a digit; the names sorted, as their trainer orders them.
TASKS = {"decoy": ("blue", "brown"), "digit": tuple(sorted(CLASSES))}
SCENE_SIZES = ((320, 256), (352, 256), (320, 240), (288, 288), (256, 320), (384, 272))
DIGIT_SIZES = ((64, 64), (96, 96), (80, 64), (64, 88), (120, 90), (48, 48))
_INKS = {"orange": (0.95, 0.66, 0.45), "blue": (0.45, 0.66, 0.95), "brown": (0.50, 0.22, 0.02)}
_DECOYS = ("blue", "brown")
INK = 0.35  # coverage from which a pixel belongs to a digit
SEED = 20251
_KIND = {"digits": 0, "scenes": 1}
_SPLIT = {"train": 0, "test": 1, "calibration": 2}


def image_rng(kind: str, split: str, number: int) -> np.random.Generator:
    """The random generator that image ``number`` of a data set and split is drawn with."""
    return np.random.default_rng((SEED, _KIND.get(kind, zlib.crc32(kind.encode())), _SPLIT[split], number))


@dataclass(frozen=True)
class Box:
    """One labelled digit: class id 0..9 and its ink's tight box in pixels, ``x2`` and ``y2`` exclusive."""

    class_id: int
    x1: int
    y1: int
    x2: int
    y2: int


@dataclass(frozen=True)
class Ink:
    """A digit to be painted: the name of its colour, its value 0..9, coverage in [0, 1] (h, w), top left corner."""

    name: str
    value: int
    coverage: NDArray[np.float32]
    x: int
    y: int

    @property
    def box(self) -> Box:
        """Its tight box."""
        height, width = self.coverage.shape
        return Box(self.value, self.x, self.y, self.x + width, self.y + height)


@lru_cache(maxsize=1)
def digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """scikit-learn's digits: ink in [0, 1], shape (1797, 8, 8), and their values, shape (1797,)."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return (data.images / 16.0).astype(np.float32), data.target.astype(np.int64)


def split_indices(split: str) -> NDArray[np.int64]:
    """The digits of one split, as indices into :func:`digits`. The three splits share no digit.

    ``test`` has 360 digits, ``calibration`` 120, ``train`` the other 1317.

    Raises:
        KeyError: ``split`` is none of the three.
    """
    index = np.arange(len(digits()[1]))
    test, calibration = index % 5 == 0, index % 15 == 1
    return index[{"test": test, "calibration": calibration, "train": ~(test | calibration)}[split]]


def background(rng: np.random.Generator, width: int, height: int) -> NDArray[np.float32]:
    """A gradient, soft clouds, stripes or noise in greyish tones of 0.1 to 0.65, shape (height, width, 3)."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    angle = rng.uniform(0, np.pi)
    along = x * np.cos(angle) + y * np.sin(angle)
    kind = rng.integers(4)
    if kind == 0:
        field = (along - along.min()) / (np.ptp(along) + 1e-6)
    elif kind == 1:
        coarse = Image.fromarray(rng.random((5, 6), dtype=np.float32))
        field = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).clip(0, 1)
    elif kind == 2:
        field = 0.5 + 0.5 * np.sin(along * (2 * np.pi / rng.uniform(12, 60)))
    else:
        coarse = Image.fromarray(rng.random((height // 4, width // 4), dtype=np.float32))
        field = np.asarray(coarse.resize((width, height), Image.Resampling.BILINEAR))
    low, high = np.sort(rng.uniform(0.12, 0.60, 2))
    tint = rng.uniform(-0.04, 0.04, (2, 3))
    ends = np.array([[low], [high]]) + tint
    image = ends[0] + field[..., None] * (ends[1] - ends[0])
    image += rng.normal(0, rng.uniform(0.005, 0.03), (height, width, 1))
    return image.astype(np.float32)


def stroke(rng: np.random.Generator, index: int, size: float) -> NDArray[np.float32]:
    """Digit ``index``, about ``size`` pixels high, slightly turned and slanted, cut to its tight box.

    Returns the ink's coverage in [0, 1], shape (h, w).
    """
    side = round(size * 1.5)
    scale = 8.0 / size
    turn, slant, stretch = rng.uniform(-0.12, 0.12), rng.uniform(-0.15, 0.15), rng.uniform(0.9, 1.1)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    matrix = scale * rotation @ np.array([[stretch, slant], [0, 1]])
    offset = np.array([4.0, 4.0]) - matrix @ np.array([side / 2, side / 2])
    # A wide empty border keeps the interpolation from cutting strokes that touch the edge of the 8x8 cell.
    cell = Image.fromarray(np.pad(digits()[0][index], 4))
    affine = (matrix[0, 0], matrix[0, 1], offset[0] + 4, matrix[1, 0], matrix[1, 1], offset[1] + 4)
    grey = cell.transform((side, side), Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC)
    ink = (np.asarray(grey) * 1.3 - 0.15).clip(0, 1)
    rows, columns = np.flatnonzero((ink > INK).any(1)), np.flatnonzero((ink > INK).any(0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float32)


def paint(
    rng: np.random.Generator, image: NDArray[np.float32], ink: NDArray[np.float32], name: str, x: int, y: int
) -> None:
    """Paint ``ink`` in about the named colour onto ``image``, its top left corner at (x, y), cut at the borders."""
    colour = np.array(_INKS[name]) + rng.uniform(-0.04, 0.04) + rng.uniform(-0.02, 0.02, 3)
    height, width = image.shape[:2]
    top, left = max(-y, 0), max(-x, 0)
    part = ink[top : max(height - y, 0), left : max(width - x, 0), None]
    region = image[max(y, 0) : max(y, 0) + part.shape[0], max(x, 0) : max(x, 0) + part.shape[1]]
    region += part * (colour - region)


def to_pixels(image: NDArray[np.float32]) -> Pixels:
    """[0, 1] to uint8, rounded."""
    return (image.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def draw_digit(rng: np.random.Generator, index: int) -> Pixels:
    """Digit ``index`` in orange over a decoy of another value, RGB uint8 of one of ``DIGIT_SIZES``."""
    return draw_digit_and_decoy(rng, index)[0]


def draw_digit_and_decoy(rng: np.random.Generator, index: int) -> tuple[Pixels, str]:
    """The picture of :func:`draw_digit`, and the decoy's ink: blue or brown."""
    width, height = DIGIT_SIZES[rng.integers(len(DIGIT_SIZES))]
    image = background(rng, width, height)
    values = digits()[1]
    others = np.flatnonzero(values != values[index])
    side = min(width, height)
    decoy = ""
    for name, digit in (("decoy", int(rng.choice(others))), ("orange", index)):
        ink = stroke(rng, digit, side * rng.uniform(0.62, 0.82))
        shift = side * (0.18 if name == "decoy" else 0.06)
        x = round((width - ink.shape[1]) / 2 + rng.uniform(-shift, shift))
        y = round((height - ink.shape[0]) / 2 + rng.uniform(-shift, shift))
        decoy = decoy or _DECOYS[rng.integers(2)]
        paint(rng, image, ink, name if name == "orange" else decoy, x, y)
    return to_pixels(image), decoy


def draw_scene(
    rng: np.random.Generator,
    indices: NDArray[np.int64],
    targets: tuple[int, int] = (3, 6),
    decoys: tuple[int, int] = (2, 3),
) -> tuple[Pixels, list[Box]]:
    """A scene of digits of about 38 to 64 pixels taken from ``indices``, none touching another.

    Returns RGB uint8, shape (h, w, 3), and the boxes of the orange digits.
    ``targets`` and ``decoys`` are inclusive ranges of how many are tried; one that finds no room is left out.
    """
    return draw_inked_scene(rng, indices, targets, decoys)[:2]


def draw_inked_scene(
    rng: np.random.Generator,
    indices: NDArray[np.int64],
    targets: tuple[int, int] = (3, 6),
    decoys: tuple[int, int] = (2, 3),
) -> tuple[Pixels, list[Box], list[NDArray[np.bool_]]]:
    """:func:`draw_scene` with what each orange digit covers: a mask (box height, box width) per box."""
    width, height = SCENE_SIZES[rng.integers(len(SCENE_SIZES))]
    image = background(rng, width, height)
    found: list[Ink] = []
    for ink in scatter(rng, indices, colors(rng, targets, decoys), width, height):
        paint(rng, image, ink.coverage, ink.name, ink.x, ink.y)
        if ink.name == "orange":
            found.append(ink)
    return to_pixels(image), [ink.box for ink in found], [ink.coverage > INK for ink in found]


def colors(rng: np.random.Generator, targets: tuple[int, int], decoys: tuple[int, int]) -> list[str]:
    """Names of the colours of a scene's digits, the orange ones first; ranges are inclusive."""
    wanted = ["orange"] * int(rng.integers(targets[0], targets[1] + 1))
    return wanted + [_DECOYS[rng.integers(2)] for _ in range(rng.integers(decoys[0], decoys[1] + 1))]


def scatter(
    rng: np.random.Generator,
    indices: NDArray[np.int64],
    wanted: Sequence[str],
    width: int,
    height: int,
    sizes: tuple[float, float] = (38, 64),
) -> Iterator[Ink]:
    """A digit of ``indices`` for every colour of ``wanted``, none touching another; who finds no room is left out.

    Lazy: what is painted in between draws from the same generator.
    """
    values = digits()[1]
    taken: list[tuple[int, int, int, int]] = []
    for name in wanted:
        digit = int(rng.choice(indices))
        ink = stroke(rng, digit, rng.uniform(*sizes))
        h, w = ink.shape
        for _ in range(40):
            x, y = int(rng.integers(2, width - w - 1)), int(rng.integers(2, height - h - 1))
            if all(x > c + 6 or x + w + 6 < a or y > d + 6 or y + h + 6 < b for a, b, c, d in taken):
                taken.append((x, y, x + w, y + h))
                yield Ink(name, int(values[digit]), ink, x, y)
                break
