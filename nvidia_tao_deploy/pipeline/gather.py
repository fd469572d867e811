"""What all ranks found, on rank 0: predictions in the dataset's order, or parts to be merged."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from heapq import merge
from operator import itemgetter
from typing import Any, TypeVar

from nvidia_tao_deploy.data.sample import Dataset, Sample
from nvidia_tao_deploy.errors import RuntimeUnavailableError
from nvidia_tao_deploy.pipeline.ranks import Stopped, Team
from nvidia_tao_deploy.pipeline.tally import Tally

T = TypeVar("T")
Numbered = Iterator[tuple[int, Sample, Any]]


def send_all(
    team: Team,
    dataset: Dataset,
    predictions: Numbered,
    tally: Tally,
    batch_size: int,
    condensed: Callable[[Sample, Any], Any] | None = None,
) -> None:
    """A rank's part: its (dataset index, prediction) pairs to rank 0, ``condensed`` if wanted, then its tally.

    Each batch goes as soon as it is whole: rank 0 waits for it.

    Raises:
        Stopped: rank 0 ended the run.
    """
    link = team.link
    rows: list[tuple[int, Any]] = []
    assert link is not None
    for index, sample, prediction in predictions:
        if rows and index // batch_size != rows[-1][0] // batch_size:  # the last of a batch could not be read
            link.send(("rows", rows))
            rows = []
        rows.append((index, prediction if condensed is None else condensed(sample, prediction)))
        if index + 1 == len(dataset) or (index + 1) % batch_size == 0:
            link.send(("rows", rows))
            rows = []
        if link.stopped():
            raise Stopped
    link.send(("rows", rows))
    link.send(("done", tally))


def gather(team: Team, dataset: Dataset, own: Numbered, tally: Tally) -> Iterator[tuple[Sample, Any]]:
    """Rank 0's part: its own pairs and the others', as their indices come; memory holds what came early.

    Raises:
        Exception: the error that another rank ended with.
        RuntimeUnavailableError: a rank died.
    """
    inbox: dict[int, deque[tuple[int, Any]]] = {rank: deque() for rank in range(1, team.count)}
    finished: dict[int, Tally] = {}

    def theirs(rank: int) -> Numbered:
        while inbox[rank] or rank not in finished:
            while inbox[rank]:
                index, prediction = inbox[rank].popleft()
                tally.images += 1
                yield index, dataset[index], prediction
            if rank not in finished:
                _take(team, inbox, finished, 0.2)

    for _, sample, prediction in merge(own, *map(theirs, inbox), key=itemgetter(0)):
        yield sample, prediction
    for other in finished.values():
        tally.add(other)


class Given(Exception):  # noqa: N818 - not an error
    """This rank's part is sent; what follows is for rank 0."""


def pooled(team: Team, find: Callable[[Callable[[int], None]], T]) -> list[T]:
    """On rank 0: what ``find`` gave on every rank, by rank.

    Args:
        team: the ranks; where there is one, its own part is all.
        find: calls its argument between its steps, so that the end of the run is noticed.

    Raises:
        Given: on every other rank, when its part is sent.
        Exception: the error that another rank ended with.
        RuntimeUnavailableError: a rank died, or had no part to give.
        Stopped: rank 0 ended the run.
    """
    link, found = team.link, dict[int, Any]()

    def look(_: int) -> None:
        if link is not None and link.stopped():
            raise Stopped
        while team.leads and link is not None and _take(team, {}, found, 0.0):
            pass

    found[0] = find(look)
    if link is not None and not team.leads:
        link.send(("done", found[0]))
        raise Given
    while len(found) < team.count:
        _take(team, {}, found, 0.2)
    if None in found.values():
        raise RuntimeUnavailableError("another rank had nothing to give", remedy="All ranks must see the same files.")
    return [found[rank] for rank in range(team.count)]


def _take(
    team: Team,
    inbox: dict[int, deque[tuple[int, Any]]],
    finished: dict[int, Any],
    timeout: float,
) -> bool:
    """Take in the next message, if there is one in time."""
    assert team.link is not None
    received = team.link.received(timeout)
    if received is None:
        return False
    rank, (kind, content) = received
    if kind == "error":
        raise content
    if kind == "done":
        finished[rank] = content
    else:
        inbox[rank].extend(content)
    return True
