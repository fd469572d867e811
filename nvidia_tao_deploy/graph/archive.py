"""An ONNX model inside a zip archive, read in memory: nothing is ever unpacked to disk."""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from nvidia_tao_deploy.errors import ModelError

ZIP_MAGIC = b"PK\x03\x04"
MAX_ENTRIES = 10_000
MAX_BYTES = 2**31  # of all members together, unpacked; also protobuf's limit for one model
MAX_RATIO = 100  # weights hardly shrink; deflate can pack zeros 1000:1
SMALL_BYTES = 2**20  # below this a member may have any ratio
_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError, RuntimeError)


def read_model(path: Path) -> bytes:
    """The only ONNX file in the archive.

    Raises:
        ModelError: the archive is broken, unsafe or too large, or holds none or several.
    """
    with _opened(path) as archive:
        return _content(archive, _model(archive, path))


def read_beside_model(path: Path, name: str) -> bytes | None:
    """The file called ``name`` in the model's folder inside the archive; None: there is none.

    Raises:
        ModelError: as :func:`read_model`, or the file is larger than a text should be.
    """
    with _opened(path) as archive:
        wanted = PurePosixPath(_model(archive, path).filename).with_name(name).as_posix()
        found = next((info for info in archive.infolist() if info.filename == wanted), None)
        if found is not None and found.file_size > SMALL_BYTES:
            raise ModelError(f"{wanted} has {found.file_size} bytes, too many for a text", where=str(path))
        return _content(archive, found) if found is not None else None


def _content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """An entry's bytes, never more in memory than the archive states: ``ZipFile.read`` unpacks first and cuts then."""
    with archive.open(entry) as member:
        return member.read(entry.file_size)


def _model(archive: zipfile.ZipFile, path: Path) -> zipfile.ZipInfo:
    names = [info for info in archive.infolist() if not info.filename.startswith("__MACOSX/")]
    models = [info for info in names if info.filename.lower().endswith(".onnx")]
    if len(models) == 1:
        return models[0]
    held = ", ".join(info.filename for info in (models or names)[:5])
    what = (
        f"{len(models)} ONNX files" if models else "no ONNX file (a PyTorch checkpoint, or an export of another kind?)"
    )
    remedy = "Export the model as ONNX, one in an archive."
    raise ModelError(f"the zip archive holds {what}: {held}", where=str(path), remedy=remedy)


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The archive, after every entry was looked at."""
    try:
        with zipfile.ZipFile(path) as archive:
            problem = _problem(archive.infolist())
            if problem:
                problem, remedy = f"the zip archive is refused: {problem}", "Download the export again."
                raise ModelError(problem, where=str(path), remedy=remedy)
            yield archive
    except _UNREADABLE as error:
        problem, remedy = f"the zip archive cannot be read: {error}", "Is the download complete?"
        raise ModelError(problem, where=str(path), remedy=remedy) from error


def _problem(entries: list[zipfile.ZipInfo]) -> str | None:
    if len(entries) > MAX_ENTRIES:
        return f"{len(entries)} entries"
    total = sum(entry.file_size for entry in entries)
    if total > MAX_BYTES:
        return f"it unpacks to {total} bytes, more than {MAX_BYTES}"
    seen: set[str] = set()
    for entry in entries:
        # Nothing is unpacked, yet an archive with such an entry was made to do harm.
        name = entry.filename.replace("\\", "/")
        if name.startswith("/") or ".." in name.split("/") or ":" in name.split("/")[0]:
            return f"the path '{entry.filename}' leaves the archive"
        if stat.S_ISLNK(entry.external_attr >> 16):
            return f"'{entry.filename}' is a link"
        if entry.flag_bits & 1:
            return f"'{entry.filename}' is encrypted"
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            # The exporters deflate; Python unpacks other kinds without a bound.
            return f"'{entry.filename}' is neither stored nor deflated"
        if entry.file_size > max(SMALL_BYTES, MAX_RATIO * entry.compress_size):
            return f"'{entry.filename}' unpacks to {entry.file_size} bytes from {entry.compress_size}"
        if name in seen:
            return f"'{entry.filename}' stands in it twice"
        seen.add(name)
    return None
