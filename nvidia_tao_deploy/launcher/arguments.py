"""The command line of ``tao_deploy``."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from textwrap import fill
from typing import Any, NoReturn

from nvidia_tao_deploy.errors import UsageError
from nvidia_tao_deploy.networks import COMMANDS

SHELL = ("/bin/bash",)

_EPILOG = """\
examples:
  tao_deploy --volume /data:/data -- rtdetr evaluate -e /data/spec.yaml
  tao_deploy --gpus 0,1 --volume /data:/data:ro --env NGC_API_KEY -- dino inference -e /data/spec.yaml
  tao_deploy --port 8888:8888 -- jupyter notebook --ip 0.0.0.0
  tao_deploy                      an interactive shell in the container
  tao_deploy doctor [--json]      what is here, what is missing, what to do

commands of the container, each with --help of its own:
"""


@dataclass(frozen=True)
class Options:
    """What was asked for; ``None`` means "not said", so that the mounts file or a default decides."""

    gpus: str | None
    volumes: tuple[str, ...]
    env: tuple[str, ...]
    mounts_file: str | None
    shm_size: str | None
    run_as_user: bool
    tag: str | None
    ulimits: tuple[str, ...]
    tty: bool | None
    ports: tuple[str, ...]
    dry_run: bool
    engine: str | None
    runtime: str | None
    manifest: str | None
    command: tuple[str, ...]


def parse(argv: Sequence[str]) -> Options:
    """Flags before the first ``--``, the command after it; an empty command is a shell.

    Raises:
        UsageError: an unknown flag or a flag without its value. Values are never quoted back: they may be secrets.
        SystemExit: after ``--help``.
    """
    words = list(argv)
    split = words.index("--") if "--" in words else len(words)
    flags, command = words[:split], words[split + 1 :]
    found, unknown = _parser().parse_known_args(flags)
    if unknown:
        remedy = "Put -- before the command that runs in the container."
        if unknown[0].startswith("-"):
            remedy = "tao_deploy --help lists the flags."
        raise UsageError(f"unknown argument: {_describe(unknown[0])}", remedy=remedy)
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in vars(found).items()
    }
    return Options(**values, command=tuple(command) or SHELL)


def _describe(word: str) -> str:
    """``word`` if it is a plain flag or command name; otherwise only that it is text, for it may hold a secret."""
    match = re.match(r"--?[A-Za-z][\w-]*(?==|$)|[a-z][a-z0-9_]*$", word)
    return match.group(0) if match else "a word that is no flag"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message, remedy="tao_deploy --help lists the flags.")


def _parser() -> argparse.ArgumentParser:
    """A flag's ``dest`` is a field of `Options`."""
    commands = (*COMMANDS, "model_agnostic")
    parser = _Parser(
        prog="tao_deploy",
        usage="tao_deploy [flags] [-- command ...]",
        description="Run a command of nvidia_tao_deploy in a container, with GPUs and mounts.",
        epilog=_EPILOG + fill(" ".join(commands), 110, initial_indent="  ", subsequent_indent="  "),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    repeatable = partial(add, action="append", default=[])
    which = "all, none, or indices and UUIDs: 0,1 or GPU-6fa4... (default: all, when there are any)"
    add("--gpus", metavar="LIST", help=which)
    repeatable("--volume", dest="volumes", metavar="SRC:DST[:ro]", help="mount a host path; repeatable")
    hidden = "set or inherit a variable; the value is never printed; repeatable"
    repeatable("--env", metavar="NAME[=VALUE]", help=hidden)
    add("--mounts_file", metavar="FILE", help="JSON with Mounts, Envs, DockerOptions, read after ~/.tao_mounts.json")
    add("--shm_size", metavar="SIZE", help="size of /dev/shm (default: 16G)")
    add(
        "--run_as_user",
        action="store_true",
        help="run as the calling user, whatever the mounts file says (the default without a user there)",
    )
    add(
        "--tag",
        metavar="TAG",
        help="use this tag of the repository instead of the manifest's digest; it is resolved and run by digest",
    )
    repeatable("--ulimit", dest="ulimits", metavar="NAME=SOFT[:HARD]", help="repeatable")
    repeatable("--port", dest="ports", metavar="[IP:]HOST:CONTAINER", help="publish a port; repeatable")
    terminal = parser.add_mutually_exclusive_group()
    terminal.add_argument(
        "--no-tty", dest="tty", action="store_false", default=None, help="no terminal, even if there is one"
    )
    terminal.add_argument("--tty", dest="tty", action="store_true", help="a terminal, even if output is redirected")
    add("--dry-run", action="store_true", help="print the exact argument vector and start nothing")
    add("--engine", choices=("docker", "podman"), help="default: docker if installed, else podman")
    add("--runtime", metavar="NAME", help="OCI runtime of the engine; nvidia passes GPUs by environment variable")
    add(
        "--manifest",
        metavar="FILE",
        help="image manifest (default: docker/manifest.json of the checkout or the installed package)",
    )
    return parser
