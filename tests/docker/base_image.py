"""A base image out of this Debian machine's own packages: Python, its venv module, bash and what they need. No network.

Copying the files of installed packages takes seconds where debootstrap takes most of a minute.
"""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
from pathlib import Path

_WANTED = (
    "base-files",
    "bash",
    "coreutils",
    "passwd",
    "python3",
    "python3-venv",
    "libgomp1",
    "libstdc++6",
    "sed",
    "grep",
    "util-linux",
)
_DROPPED = re.compile(
    r"/usr/share/(doc|man|locale|info|lintian|bash-completion|zoneinfo|bug|menu)/|/usr/lib/python3[^/]*/(test|idlelib|lib2to3)/"
)
_MERGED = ("bin", "sbin", "lib", "lib64", "lib32", "libx32")
_PASSWD = "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
_GROUP = "root:x:0:\nvideo:x:44:\nnogroup:x:65534:\n"


def closure() -> list[str]:
    """Installed packages that the wanted ones depend on, by dpkg's own records.

    Raises:
        OSError: no dpkg here.
        LookupError: a wanted package is not installed.
    """
    form = "${db:Status-Abbrev}\t${Package}\t${Depends}, ${Pre-Depends}\t${Provides}\n"
    listing = subprocess.run(["dpkg-query", "-W", "-f", form], capture_output=True, text=True, check=True).stdout
    needs: dict[str, list[str]] = {}
    providers: dict[str, str] = {}
    for line in listing.splitlines():
        status, package, depends, provides = line.split("\t")
        if not status.startswith("ii"):
            continue
        needs[package] = [re.sub(r"\(.*?\)|:\w+", "", part).strip() for part in depends.split(",")]
        for virtual in provides.split(","):
            providers.setdefault(re.sub(r"\(.*?\)", "", virtual).strip(), package)
    missing = [name for name in _WANTED if name not in needs]
    if missing:
        raise LookupError(f"not installed here: {', '.join(missing)}")
    found: set[str] = set()
    waiting = list(_WANTED)
    while waiting:
        package = waiting.pop()
        if package in found:
            continue
        found.add(package)
        for alternatives in needs[package]:
            names = [name.strip() for name in alternatives.split("|")]
            known = [name if name in needs else providers.get(name) for name in names]
            waiting += [name for name in known[:1] if name and not name.startswith(("perl", "debconf"))]
    return sorted(found)


def write_base(path: Path) -> None:
    """Write a root file system as a tar file for ``docker import``."""
    files = subprocess.run(["dpkg", "-L", *closure()], capture_output=True, text=True, check=True).stdout.splitlines()
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for name in _MERGED:
            if Path("/", name).is_symlink():
                _add(tar, name, link=f"usr/{name}")
        for name in ("root", "proc", "sys", "dev", "tmp", "var/tmp", "etc", "run"):
            _add(tar, name, mode=0o1777 if name.endswith("tmp") else 0o755)
        _add(tar, "etc/passwd", content=_PASSWD)
        _add(tar, "etc/group", content=_GROUP)
        _add(tar, "usr/bin/sh", link="bash")
        seen = {"/etc/passwd", "/etc/group", "/usr/bin/sh", *(f"/{name}" for name in _MERGED)}
        for file in sorted(set(files)):
            # /bin/bash is listed where the package has it; on a merged system the file is /usr/bin/bash.
            place = re.sub(r"^/(bin|sbin|lib\w*)/", r"/usr/\1/", file) if Path("/bin").is_symlink() else file
            source = Path(place)
            if place in seen or _DROPPED.search(place) or not (source.is_file() or source.is_symlink()):
                continue
            seen.add(place)
            tar.add(place, arcname=place.lstrip("/"), recursive=False)
        for cache in ("/etc/ld.so.cache", "/etc/login.defs"):
            if Path(cache).exists() and cache not in seen:
                tar.add(cache, arcname=cache.lstrip("/"))


def _add(tar: tarfile.TarFile, name: str, *, mode: int = 0o644, link: str = "", content: str | None = None) -> None:
    entry = tarfile.TarInfo(name)
    entry.mode = mode
    if link:
        entry.type, entry.linkname = tarfile.SYMTYPE, link
    elif content is None:
        entry.type = tarfile.DIRTYPE
    data = (content or "").encode()
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))
