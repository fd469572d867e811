"""Entry of ``tao_deploy``: argv in, exit code out."""

from __future__ import annotations

import os
import shlex
import sys
import uuid
from collections.abc import Sequence
from typing import NoReturn

from nvidia_tao_deploy.errors import TaoDeployError
from nvidia_tao_deploy.launcher.arguments import parse
from nvidia_tao_deploy.launcher.container import run_container
from nvidia_tao_deploy.launcher.engine import EngineMissingError, find_engine, offline_engine
from nvidia_tao_deploy.launcher.environment import hide_values
from nvidia_tao_deploy.launcher.gpus import gpus_present
from nvidia_tao_deploy.launcher.image import provide_image, wanted_reference
from nvidia_tao_deploy.launcher.manifest import find_manifest, read_manifest
from nvidia_tao_deploy.launcher.request import WORKDIR, container_arguments, make_request
from nvidia_tao_deploy.launcher.spec_paths import uncovered_paths, warning


def run() -> NoReturn:
    """Entry of the console command ``tao_deploy``."""
    sys.exit(main())


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``tao_deploy``.

    Returns:
        The exit code of the command in the container; 2 for a usage error, 125 if the container cannot start, 127 if
        there is no engine, 130 after an interrupt before the start.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if words[:1] == ["doctor"]:
            from nvidia_tao_deploy.launcher.doctor import main as doctor

            return doctor(words[1:])
        return launch(words)
    except TaoDeployError as error:
        print(f"tao_deploy: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("tao_deploy: interrupted", file=sys.stderr)
        return 130


def launch(words: Sequence[str]) -> int:
    """Start the container that ``words`` ask for and return its exit code, or print it for ``--dry-run``."""
    options = parse(words)
    request = make_request(options)
    manifest = read_manifest(find_manifest(options.manifest))
    try:
        engine = find_engine(options.engine)
    except EngineMissingError as error:
        if not options.dry_run:
            raise
        _note(f"{error.what}; showing what a current engine would be told")
        engine = offline_engine(options.engine)
    reference = wanted_reference(manifest, options.tag, engine.architecture)
    for path, where in uncovered_paths(request.command, request.mounts, WORKDIR).items():
        _note(f"warning: {warning(path, where)}")
    if request.gpus is None and "--gpus" not in words and engine.local and not gpus_present():
        _note("no NVIDIA driver on this host: the container gets no GPU (--gpus all insists)")
    name = f"tao_deploy-{uuid.uuid4().hex[:12]}"
    if options.dry_run:
        arguments, _ = container_arguments(request, engine, reference, name)
        sys.stdout.flush()
        sys.stdout.buffer.write(os.fsencode(shlex.join(hide_values(arguments, request.env)) + "\n"))
        return 0
    image = provide_image(engine, reference)
    arguments, environment = container_arguments(request, engine, image, name)
    _note(shlex.join(hide_values(arguments, request.env)))
    return run_container(arguments, environment, engine, name, tty=request.tty)


def _note(text: str) -> None:
    print(f"tao_deploy: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
