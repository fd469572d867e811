"""The same images every time, whatever order the file system lists them in."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from nvidia_tao_deploy.calibration.select import choose
from nvidia_tao_deploy.errors import DataError

PATHS = [Path(f"images/{i:03d}.png") for i in range(50)]


def test_choice_depends_on_the_set_and_the_seed_only():
    shuffled = random.Random(3).sample(PATHS, len(PATHS))
    chosen = choose(PATHS, 10, seed=1)
    assert chosen == choose(shuffled, 10, seed=1) == sorted(set(chosen))
    assert chosen != choose(PATHS, 10, seed=2)
    assert choose(PATHS, 50) == PATHS


def test_too_few_and_none():
    with pytest.raises(DataError, match=r"60 .* only 50"):
        choose(PATHS, 60)
    with pytest.raises(DataError, match="no calibration images"):
        choose([], 5)
