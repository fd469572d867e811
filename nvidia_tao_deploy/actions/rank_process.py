"""A rank that a run on several GPUs started: ``python -m nvidia_tao_deploy.actions.rank_process FD INDEX COUNT FILE``.

FD is this rank's end of the socket to rank 0, over which the job comes, FILE the one of the counter they share.
Everything a person should see is said by rank 0, so this process is silent and ends with its exit code alone.
"""

from __future__ import annotations

import signal
import sys
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any

from nvidia_tao_deploy.actions.verbs import verb
from nvidia_tao_deploy.pipeline.ranks import ChildLink, Counter, Stopped, Team, adopt


def main(fd: int, index: int, count: int, file: int) -> int:
    """Run the job as rank ``index``; the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # rank 0 gets it too and ends the others
    connection = Connection(fd)
    try:
        work = connection.recv()
    except EOFError:
        return 1
    link = ChildLink(connection, Counter(file))
    adopt(Team(index, count, index, link))
    try:
        _run(work)
    except Stopped:
        return 1
    except Exception as error:  # before the ranks were joined: a dataset that only this rank cannot read
        link.send(("error", error))
        return 1
    return 0


def _run(work: dict[str, Any]) -> None:
    from nvidia_tao_deploy.networks import NETWORKS

    network = import_module(NETWORKS[work["network"]].module).NETWORK
    verb(network, work["action"])(work["source"], work["overrides"], flags=work["flags"])


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:5])))
