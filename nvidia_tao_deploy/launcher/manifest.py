"""``docker/manifest.json``: which image runs, named by digest."""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nvidia_tao_deploy.errors import TaoDeployError, UsageError
from nvidia_tao_deploy.files import write_json
from nvidia_tao_deploy.launcher.engine import ContainerError

TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_REGISTRY = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::[0-9]{1,5})?", re.IGNORECASE)
_REPOSITORY = re.compile(r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*")
_USAGE = "MANIFEST x86|arm|x86,arm sha256:<64 hex> [registry/repository]"
_KEYS = ("registry", "repository", "tag", "digest", "digests")
_BUILD = "Build and publish one with docker/build.sh --build --push --write, or name a local image with --tag."


@dataclass(frozen=True)
class Manifest:
    """One image repository and the digests of its current image.

    Attributes:
        name: ``registry/repository``.
        digests: by architecture, ``x86`` and ``arm``; the empty key is a digest for every platform.
        tag: tag of the oldest form, used when there is no digest.
    """

    path: Path
    name: str
    digests: dict[str, str]
    tag: str | None

    def digest(self, architecture: str) -> str | None:
        """Digest for ``x86_64``, ``amd64``, ``aarch64`` or ``arm64``; ``digest`` wins over ``digests``.

        Raises:
            ContainerError: the manifest has digests, but none for this architecture, or names no image at all.
        """
        key = "arm" if architecture.lower() in ("aarch64", "arm64") else "x86"
        found = self.digests.get("") or self.digests.get(key)
        if found or (self.tag and not self.digests):
            return found
        have = ", ".join(sorted(self.digests)) or "no image yet"
        raise ContainerError(
            f"no digest for {key} in the image manifest (it has: {have})", where=str(self.path), remedy=_BUILD
        )


def find_manifest(explicit: str | None) -> Path:
    """The manifest: ``--manifest``, NV_TAO_DEPLOY_TOP, the checkout above the current folder, the installed copy.

    Raises:
        UsageError: none is there.
    """
    if explicit:
        return Path(explicit).expanduser()
    top = os.environ.get("NV_TAO_DEPLOY_TOP")
    if top:
        return Path(top) / "docker" / "manifest.json"
    here = Path.cwd()
    # A folder above counts only if it is this project's checkout: any other docker/manifest.json is a stranger's.
    roots = [folder for folder in (here, *here.parents) if (folder / "nvidia_tao_deploy" / "launcher").is_dir()]
    roots += [Path(__file__).resolve().parents[2], Path(sys.prefix) / "share" / "nvidia_tao_deploy"]
    for root in roots:
        path = root / "docker" / "manifest.json"
        if path.is_file():
            return path
    raise UsageError(
        "docker/manifest.json was not found",
        remedy="Run from a checkout, source scripts/envsetup.sh (it sets NV_TAO_DEPLOY_TOP), or pass --manifest FILE.",
    )


def read_manifest(path: Path) -> Manifest:
    """Read and check a manifest.

    Raises:
        UsageError: unreadable, not JSON, an unknown key, or a name or digest that is not one.
    """

    def wrong(what: str) -> UsageError:
        return UsageError(
            what, where=str(path), remedy="Expected keys: registry, repository, and digest, digests or tag."
        )

    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise wrong(f"cannot read the image manifest: {error.strerror}") from error
    except ValueError as error:
        raise wrong(f"the image manifest is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise wrong("the image manifest is not a JSON object")
    unknown = sorted(set(data) - set(_KEYS))
    if unknown:
        raise wrong(f"unknown key {unknown[0]!r}")
    registry, repository = data.get("registry"), data.get("repository")
    if not isinstance(registry, str) or not _REGISTRY.fullmatch(registry):
        raise wrong(f"registry {registry!r} is not a host name")
    if not isinstance(repository, str) or not _REPOSITORY.fullmatch(repository):
        raise wrong(f"repository {repository!r} is not an image name")
    digests = data.get("digests") or {}
    if not isinstance(digests, dict) or set(digests) - {"x86", "arm"}:
        raise wrong("digests must be an object with x86 and arm")
    if data.get("digest") is not None:
        digests = {"": data["digest"]}
    for value in digests.values():
        if not isinstance(value, str) or not _DIGEST.fullmatch(value):
            raise wrong(f"digest {value!r} is not sha256: and 64 hexadecimal digits")
    tag = data.get("tag")
    if tag is not None and (not isinstance(tag, str) or not TAG.fullmatch(tag)):
        raise wrong(f"tag {tag!r} is not an image tag")
    return Manifest(path, f"{registry}/{repository}", dict(digests), tag)


def write_digest(path: Path, architectures: list[str], digest: str, name: str | None = None) -> None:
    """Set ``digests`` of ``architectures`` (``x86``, ``arm``); a file that is not there is made if ``name`` is given.

    Args:
        name: ``registry/repository`` the digest belongs to; another one than the file's replaces that with its digests.

    Raises:
        UsageError: the file, an architecture or the digest is wrong.
    """
    before = read_manifest(path) if path.exists() or name is None else Manifest(path, name, {}, None)
    if not _DIGEST.fullmatch(digest) or set(architectures) - {"x86", "arm"}:
        raise UsageError(f"usage: ... {_USAGE}")
    name = name or before.name
    registry, _, repository = name.partition("/")
    kept = {key: value for key, value in before.digests.items() if key and name == before.name}
    kept.update(dict.fromkeys(architectures, digest))
    write_json(
        path, {"registry": registry, "repository": repository, "digests": dict(sorted(kept.items(), reverse=True))}
    )
    read_manifest(path)


def main(argv: list[str]) -> int:
    """``MANIFEST x86|arm|x86,arm DIGEST [NAME]``: what docker/build.sh --write calls."""
    try:
        if len(argv) not in (3, 4):
            raise UsageError(f"usage: {_USAGE}")
        write_digest(Path(argv[0]), argv[1].split(","), *argv[2:])
    except TaoDeployError as error:
        print(f"manifest: error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
