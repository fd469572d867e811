"""From manifest or tag to an image that is there and named by digest."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from nvidia_tao_deploy.errors import UsageError
from nvidia_tao_deploy.launcher.engine import ContainerError, Engine
from nvidia_tao_deploy.launcher.manifest import TAG, Manifest


def wanted_reference(manifest: Manifest, tag: str | None, architecture: str) -> str:
    """``name@sha256:...`` by the manifest, or ``name:tag`` if a tag was asked for or is all the manifest has.

    Raises:
        UsageError: ``tag`` is not a tag.
        ContainerError: the manifest has no digest for this architecture.
    """
    if tag is not None and not TAG.fullmatch(tag):
        raise UsageError(f"--tag {tag!r} is not an image tag", remedy="Letters, digits, _, . and -, at most 128.")
    digest = None if tag is not None else manifest.digest(architecture)
    return f"{manifest.name}@{digest}" if digest else f"{manifest.name}:{tag or manifest.tag}"


def provide_image(engine: Engine, reference: str) -> str:
    """Pull ``reference`` if it is not there and return the name to run it by.

    That is always a digest: of the registry or, for an image that was never pushed, of its own content (the image id).

    Raises:
        ContainerError: it cannot be pulled, or what came is not what the digest says.
    """
    details = _inspect(engine, reference)
    if details is None:
        print(f"tao_deploy: pulling {reference}", file=sys.stderr, flush=True)
        pull = subprocess.run(
            [engine.executable, "pull", reference],
            stdin=subprocess.DEVNULL,
            stdout=2,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            check=False,
        )
        if pull.returncode:
            raise ContainerError(
                f"cannot pull {reference}: {pull.stderr.strip()}",
                remedy=f"Check its name and tag or digest, the network, and {engine.name} login for that registry.",
            )
        details = _inspect(engine, reference)
    if details is None:
        raise ContainerError(
            f"{reference} was pulled, but the engine does not have it", remedy="Check the engine's storage."
        )
    return digest_reference(reference, details)


def digest_reference(reference: str, details: dict[str, Any]) -> str:
    """The name by digest of the inspected image ``details``.

    Raises:
        ContainerError: ``reference`` names a digest that the image does not have.
    """
    digests = [str(item) for item in details.get("RepoDigests") or []]
    name, at, digest = reference.partition("@")
    if at:
        # Docker shortens names on docker.io, so only the digest itself is compared.
        if not any(item.endswith(f"@{digest}") for item in digests) and details.get("Digest") != digest:
            what = f"the image found for {reference} has another digest: {', '.join(digests) or 'none'}"
            raise ContainerError(what, remedy="Correct the manifest.")
        return reference
    name = name.rpartition(":")[0]
    for item in digests:
        if item.startswith(f"{name}@"):
            return item
    return str(details["Id"])


def _inspect(engine: Engine, reference: str) -> dict[str, Any] | None:
    answer = engine.ask("image", "inspect", "--format", "{{json .}}", reference)
    if answer.returncode:
        return None
    try:
        details = json.loads(answer.stdout)
    except ValueError as error:
        raise ContainerError(
            f"{engine.name} image inspect gave no JSON", remedy="Check the engine's version."
        ) from error
    return details if isinstance(details, dict) else None
