"""What a row is. Every module of this folder is imported; a function with ``@row(...)`` in it is measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from nvidia_tao_deploy.transforms.transform import Geometry

GEOMETRY = Geometry((640, 480), (640, 640), (1.0, 640 / 480))
BATCH = 8


class Case(NamedTuple):
    """The same batch decoded twice; both give a sequence with an entry per image.

    Attributes:
        ours: the package's decoder.
        plain: plain Python loops. Detections must be as many, arrays and numbers equal in 99.9 % of their elements.
        share: the part of the batch that ``plain`` decodes (the first images, the first rows of the only image),
            where all of it would take minutes.
    """

    ours: Callable[[], Sequence[Any]]
    plain: Callable[[], Sequence[Any]]
    share: float = 1.0


class Row(NamedTuple):
    """A row of the table."""

    name: str
    networks: tuple[str, ...]
    make: Callable[[], Case]


ROWS: list[Row] = []


def row(name: str, *networks: str) -> Callable[[Callable[[], Case]], Callable[[], Case]]:
    """Add the decorated function to the table, as that of ``networks``."""

    def add(make: Callable[[], Case]) -> Callable[[], Case]:
        ROWS.append(Row(name, networks, make))
        return make

    return add


def check_agreement(ours: Sequence[Any], plain: Sequence[Any]) -> None:
    """Raises AssertionError where the two decoders differ, see :class:`Case`."""
    assert 0 < len(plain) <= len(ours)
    for one, other in zip(ours, plain, strict=False):
        if isinstance(one, np.ndarray | np.floating):
            part = np.atleast_1d(np.asarray(other))
            assert np.isclose(np.atleast_1d(one)[: len(part)], part, rtol=1e-4, atol=1e-5).mean() > 0.999
        elif hasattr(one, "text"):
            assert one.text == other.text
            assert np.isclose(one.confidence, other.confidence)
        else:
            assert len(getattr(one, "scores", one)) == len(other)
