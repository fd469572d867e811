"""Progress for people: a bar on a terminal, a plain line now and then otherwise."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from nvidia_tao_deploy.pipeline.ranks import current

T = TypeVar("T")
LINE_EVERY_SECONDS = 10.0


def say(text: str) -> None:
    """One line for the person at the shell (standard output; standard error with --json); rank 0 speaks for all."""
    if current().leads:
        print(text, flush=True)


def progress(items: Iterable[T], total: int, what: str, called: str = "images") -> Iterator[T]:
    """Pass ``items`` on, showing how many of ``total`` are done; ``called`` is what they are, in the plural."""
    if not current().leads:
        yield from items
        return
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, total=total, desc=what, unit=called.removesuffix("s"), leave=False)
        return
    began = last = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last >= LINE_EVERY_SECONDS:
            last = now
            say(f"{what}: {done} of {total} ({done / (now - began):.0f} {called}/s)")
