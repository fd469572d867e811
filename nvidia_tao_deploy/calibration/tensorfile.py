"""Calibration tensors in HDF5 (.tensorfile), as the established tools write them.

Root attributes: ``count`` (records) and ``shape`` (the common shape of all arrays). Record i is the group
``_tensorfile_array_key__<i>``; a bare array is its dataset ``_tensorfile_array_key_``, a dict its datasets by key.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.arrays import Array
from nvidia_tao_deploy.errors import DataError, RuntimeUnavailableError
from nvidia_tao_deploy.files import atomic_write

ARRAY_KEY = "_tensorfile_array_key_"
GZIP_LEVEL = 4
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_REMEDY = "Delete it to have it made again from cal_image_dir."

Record = NDArray[np.float32] | dict[str, NDArray[np.float32]]


def write_tensorfile(path: Path, records: Iterable[Array | Mapping[str, Any]]) -> int:
    """Write arrays (usually batches (N, C, H, W)) or dicts of arrays as float32, streamed; how many.

    Raises:
        DataError: no records, differing shapes, or the file cannot be written.
        RuntimeUnavailableError: h5py is not installed.
    """
    h5py = hdf5()
    count = 0
    shape: tuple[int, ...] | None = None
    with atomic_write(path) as temporary, h5py.File(temporary, "w") as file:
        for record in records:
            group = file.create_group(f"{ARRAY_KEY}_{count}")
            contents = record if isinstance(record, Mapping) else {ARRAY_KEY: record}
            for key, value in contents.items():
                array = np.asarray(value, dtype=np.float32)
                if shape is None:
                    shape = array.shape
                elif array.shape != shape:
                    raise DataError(f"record {count} has shape {array.shape}, the file holds {shape}", where=str(path))
                group.create_dataset(key, data=array, compression="gzip", compression_opts=GZIP_LEVEL)
            count += 1
        if shape is None:
            raise DataError("no calibration tensors to write", where=str(path))
        file.attrs["count"] = np.int64(count)
        file.attrs["shape"] = np.asarray(shape, dtype=np.int64)
    return count


def read_tensorfile(path: Path) -> Iterator[Record]:
    """The records in order, as float32, one in memory at a time.

    Raises (before the first record): DataError: missing, not a tensorfile, or truncated; RuntimeUnavailableError:
    h5py is not installed.
    """
    h5py = hdf5()
    if not path.is_file():
        raise DataError("no such tensorfile", where=str(path), remedy="Check cal_data_file.")
    with path.open("rb") as file:
        if file.read(len(HDF5_MAGIC)) != HDF5_MAGIC:
            raise DataError("not a tensorfile: it is not HDF5", where=str(path), remedy=_REMEDY)
    try:
        handle = h5py.File(path, "r")
    except OSError as error:
        raise DataError(f"the tensorfile is damaged ({error})", where=str(path), remedy=_REMEDY) from error
    try:
        count = int(handle.attrs["count"])
        missing = [i for i in range(count) if f"{ARRAY_KEY}_{i}" not in handle]
        problem = f"record {missing[0]} of {count} is missing" if missing else None
    except (KeyError, ValueError, TypeError):
        problem = "the HDF5 file has no record count"
    if problem:
        handle.close()
        raise DataError(problem, where=str(path), remedy=_REMEDY)
    return _records(handle, count, path)


def _records(handle: Any, count: int, path: Path) -> Iterator[Record]:
    with handle:
        for i in range(count):
            try:
                contents = _read_group(handle[f"{ARRAY_KEY}_{i}"])
            except OSError as error:
                raise DataError(f"record {i} is damaged ({error})", where=str(path), remedy=_REMEDY) from error
            yield contents[ARRAY_KEY] if set(contents) == {ARRAY_KEY} else contents


def _read_group(group: Any) -> dict[str, NDArray[np.float32]]:
    """Its arrays by name; a name with slashes stands in groups of groups."""
    found: dict[str, NDArray[np.float32]] = {}

    def take(name: str, item: Any) -> None:
        if hasattr(item, "shape"):
            found[name] = np.asarray(item[()], dtype=np.float32)

    group.visititems(take)
    return found


def hdf5() -> Any:
    """The ``h5py`` package.

    Raises:
        RuntimeUnavailableError: it is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise RuntimeUnavailableError(
            "reading and writing HDF5 files needs h5py",
            remedy="pip install h5py",
        ) from error
    return h5py
