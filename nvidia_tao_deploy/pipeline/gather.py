"""Predictions of all ranks, on rank 0, in the dataset's order."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from typing import Any

from nvidia_tao_deploy.data.sample import Dataset, Sample
from nvidia_tao_deploy.pipeline.ranks import Stopped, Team
from nvidia_tao_deploy.pipeline.tally import Tally

Numbered = Iterator[tuple[int, Sample, Any]]
SEND_EVERY = 64  # predictions per message


def send_all(team: Team, predictions: Numbered, tally: Tally) -> None:
    """A rank's part: its (dataset index, prediction) pairs to rank 0, then its tally.

    Raises:
        Stopped: rank 0 ended the run.
    """
    link, rows = team.link, []
    assert link is not None
    for index, _, prediction in predictions:
        rows.append((index, prediction))
        if len(rows) >= SEND_EVERY:
            link.send(("rows", rows))
            rows = []
        if link.stopped():
            raise Stopped
    link.send(("rows", rows))
    link.send(("done", tally))


def gather(team: Team, dataset: Dataset, own: Numbered, tally: Tally) -> Iterator[tuple[Sample, Any]]:
    """Rank 0's part: its own pairs as they come, then those of rank 1, 2, ...; memory holds what came early.

    Raises:
        Exception: the error that another rank ended with.
        RuntimeUnavailableError: a rank died.
    """
    inbox: dict[int, deque[tuple[int, Any]]] = {rank: deque() for rank in range(1, team.count)}
    finished: dict[int, Tally] = {}
    began = time.perf_counter()
    for _, sample, prediction in own:
        yield sample, prediction
        while team.count > 1 and _take(team, inbox, finished, 0.0):
            pass
    for rank in range(1, team.count):
        while inbox[rank] or rank not in finished:
            while inbox[rank]:
                index, prediction = inbox[rank].popleft()
                tally.images += 1
                yield dataset[index], prediction
            if rank not in finished:
                _take(team, inbox, finished, 0.2)
        tally.skipped += finished[rank].skipped
        tally.add(finished[rank])
        tally.wall = time.perf_counter() - began


def _take(team: Team, inbox: dict[int, deque[tuple[int, Any]]], finished: dict[int, Tally], timeout: float) -> bool:
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
