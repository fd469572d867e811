"""What the container tests work with: the daemon, and a caller with a uid of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Daemon:
    """The test daemon: environment to reach it, its registry, a base image in it."""

    env: dict[str, str]
    registry: str
    base: str

    def docker(self, *arguments: str, check: bool = True) -> str:
        """Output of one docker command."""
        result = subprocess.run(["docker", *arguments], env=self.env, capture_output=True, text=True, check=False)
        if check and result.returncode:
            raise AssertionError(f"docker {' '.join(arguments)}: {result.stderr}")
        return result.stdout.strip()

    def containers(self) -> str:
        """Names of all containers, running or not."""
        return self.docker("ps", "--all", "--format", "{{.Names}}")

    def push(self, image: str, repository: str) -> str:
        """Push ``image`` as ``registry/repository:test``; the digest."""
        name = f"{self.registry}/{repository}"
        self.docker("tag", image, f"{name}:test")
        self.docker("push", f"{name}:test")
        digests = json.loads(self.docker("image", "inspect", "--format", "{{json .RepoDigests}}", f"{name}:test"))
        return next(item.partition("@")[2] for item in digests if item.startswith(f"{name}@"))


@dataclass(frozen=True)
class Caller:
    """A user that is not root, with a launcher it can read, whatever the modes of this checkout's parent folders."""

    daemon: Daemon
    folder: Path
    uid: int = 12345
    gid: int = 12346

    @property
    def out(self) -> Path:
        """A folder that belongs to the caller."""
        return self.folder / "out"

    def launch(self, manifest: Path, flags: list[str], command: list[str]) -> subprocess.CompletedProcess[str]:
        """Run ``tao_deploy`` as this user from its own folder."""
        given = self.folder / "manifest.json"
        shutil.copy(manifest, given)
        given.chmod(0o644)
        words = ["/usr/bin/python3", "-m", "nvidia_tao_deploy.launcher.main", "--manifest", str(given), *flags, "--"]
        return subprocess.run(
            [*words, *command],
            cwd=self.out,
            env={**self.daemon.env, "PYTHONPATH": str(self.folder), "HOME": str(self.out)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            user=self.uid,
            group=self.gid,
            extra_groups=[],
        )
