"""Writing files so that they appear whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nvidia_tao_deploy.errors import DataError


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on a clean exit it is synced and renamed over ``path``.

    On any error the temporary file is removed and ``path`` is left as it was.

    Raises:
        DataError: the folder cannot be made or written, or the disk is full.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:80]}.", suffix=".part")
        os.close(handle)
    except OSError as error:
        raise cannot_write(path, error) from error
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write ``data`` to ``path`` as a whole."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` as UTF-8, as a whole."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any, *, indent: int | None = 2) -> None:
    """Write ``value`` as JSON; numpy scalars become numbers, NaN and infinities become null."""
    write_text(path, json.dumps(plain(value), indent=indent) + "\n")


def copy_beside(source: Path, folder: Path) -> None:
    """Copy a file, or a folder with all it holds, into ``folder`` as a whole; it takes the place of an older one.

    Raises:
        DataError: it cannot be written.
    """
    target = folder / source.name
    if target.exists() and target.samefile(source):
        return
    if source.is_file():
        write_bytes(target, source.read_bytes())
        return
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=f".{source.name[:80]}.") as temporary:
            copied = Path(shutil.copytree(source, Path(temporary) / source.name))
            if target.exists():
                target.replace(Path(temporary) / "old")
            copied.replace(target)
    except OSError as error:
        raise cannot_write(target, error) from error


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file in hex, read in pieces."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def plain(value: Any) -> Any:
    """``value`` with numpy scalars, tuples and paths turned into JSON's own types, NaN and infinity into None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def cannot_write(path: Path, error: OSError) -> DataError:
    """What to tell of a file that could not be written."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    remedy = "Free space there, or choose another disk." if full else "Choose a place that you may write to."
    return DataError(f"cannot write {path}: {error.strerror or error}", remedy=remedy)
