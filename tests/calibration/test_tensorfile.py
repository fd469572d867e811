"""Tensorfiles: our own round trip, files as the established tools write them, and broken ones."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from nvidia_tao_deploy.calibration.tensorfile import read_tensorfile, write_tensorfile
from nvidia_tao_deploy.errors import DataError, RuntimeUnavailableError

h5py = pytest.importorskip("h5py")
RNG = np.random.default_rng(0)


def test_layout_and_round_trip(tmp_path):
    path = tmp_path / "t.tensorfile"
    arrays = [RNG.random((2, 3, 4, 5)) for _ in range(3)]
    assert write_tensorfile(path, iter(arrays)) == 3
    with h5py.File(path) as file:
        assert file.attrs["count"] == 3
        assert list(file.attrs["shape"]) == [2, 3, 4, 5]
        data = file["_tensorfile_array_key__1/_tensorfile_array_key_"]
        assert (data.dtype, data.compression, data.compression_opts) == (np.float32, "gzip", 4)
    for read, array in zip(read_tensorfile(path), arrays, strict=True):
        np.testing.assert_array_equal(read, array.astype(np.float32))


def test_float64_records_and_dicts_of_other_writers(tmp_path):
    path = tmp_path / "old.tensorfile"
    with h5py.File(path, "w") as file:
        file.attrs["count"] = 2
        file.attrs["shape"] = [1, 2]
        file["_tensorfile_array_key__0/_tensorfile_array_key_"] = np.ones((1, 2), dtype=np.float64)
        file["_tensorfile_array_key__1/a"] = np.zeros((1, 2), dtype=np.float16)
        file["_tensorfile_array_key__1/b/c"] = np.ones((1, 2))
    first, second = read_tensorfile(path)
    assert first.dtype == second["a"].dtype == second["b/c"].dtype == np.float32


def test_broken_files_and_shapes(tmp_path):
    path = tmp_path / "t.tensorfile"
    with pytest.raises(DataError, match="shape"):
        write_tensorfile(path, [np.zeros((1, 2)), np.zeros((1, 3))])
    with pytest.raises(DataError, match="no calibration tensors"):
        write_tensorfile(path, [])
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataError, match="no such"):
        read_tensorfile(path)
    path.write_bytes(b"text")
    with pytest.raises(DataError, match="not HDF5"):
        read_tensorfile(path)
    write_tensorfile(path, [RNG.random((4, 3, 20, 20))])
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(DataError, match="damaged"):
        list(read_tensorfile(path))
    with h5py.File(path, "w") as file:
        file.attrs["count"] = 3
    with pytest.raises(DataError, match="record 0 of 3"):
        read_tensorfile(path)


def test_without_h5py_the_message_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(RuntimeUnavailableError, match="h5py"):
        write_tensorfile(tmp_path / "t", [np.zeros(1)])
