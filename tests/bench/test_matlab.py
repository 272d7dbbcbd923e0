"""MATLAB files: what scipy writes and reads comes out the same, and nothing that is wrong with a file ends the process."""

import io
import struct
import zlib

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from bench.data.matlab import MatlabError, read_matlab


def saved(compress=False, **variables):
    file = io.BytesIO()
    savemat(file, variables, do_compression=compress)
    return file.getvalue()


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("kind", ["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"])
@pytest.mark.parametrize("shape", [(20, 3, 5), (1, 1), (2, 3), (1, 0)])
def test_arrays_are_those_of_scipy(compress, kind, shape):
    array = np.arange(np.prod(shape)).reshape(shape).astype(kind)
    data = saved(compress, other=np.eye(2), d_skel=array, text="abc")
    found = read_matlab(data, "d_skel")
    expected = loadmat(io.BytesIO(data))["d_skel"]
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    assert read_matlab(data, "nothing") is None


def test_a_file_of_the_other_byte_order():
    """By hand: big-endian 2 x 2 of float64, columns first."""
    flags = struct.pack(">IIII", 6, 8, 6, 0)
    extents = struct.pack(">IIii", 5, 8, 2, 2)
    name = struct.pack(">HH4s", 1, 1, b"a")
    values = struct.pack(">II4d", 9, 32, 1, 2, 3, 4)
    matrix = flags + extents + name + values
    data = b"MATLAB 5.0".ljust(124) + b"\x01\x00MI" + struct.pack(">II", 14, len(matrix)) + matrix
    np.testing.assert_array_equal(read_matlab(data, "a"), [[1, 3], [2, 4]])


@pytest.mark.parametrize("value", ["text", np.array([[1 + 2j]]), np.array([[{}]], dtype=object), {"a": 1}])
def test_other_things_than_real_numbers_are_refused(value):
    with pytest.raises(MatlabError, match="no real array of numbers"):
        read_matlab(saved(d_skel=value), "d_skel")


@pytest.mark.parametrize("compress", [False, True])
def test_every_cut_is_noticed(compress):
    data = saved(compress, d_skel=np.arange(60.0).reshape(5, 3, 4))
    for size in range(len(data)):
        try:
            assert read_matlab(data[:size], "d_skel") is None
        except MatlabError:
            continue
        assert size <= 128  # a header alone is a file of nothing


@pytest.mark.parametrize("value", [0, 1, 5, 9, 14, 15, 0xFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x00050001])
def test_every_damaged_word_is_survived(value):
    """Sizes, types and extents of every kind: among these are files that end the process of other readers."""
    data = saved(d_skel=np.arange(60.0).reshape(5, 3, 4))
    for at in range(116, 200, 4):
        damaged = data[:at] + struct.pack("<I", value) + data[at + 4 :]
        try:
            found = read_matlab(damaged, "d_skel")
        except MatlabError:
            continue
        assert found is None or found.size == 60


def test_an_array_of_many_parts_takes_no_memory(within):
    """Empty elements cost eight bytes each; no more of them are looked at than an array has."""
    parts = bytes(8) * 1_000_000
    packed = zlib.compress(struct.pack("<II", 14, len(parts)) + parts)
    data = saved(x=np.zeros(3))[:128] + struct.pack("<II", 15, len(packed)) + packed
    with within(5e7):
        assert read_matlab(data, "x") is None


def test_no_header():
    for data in (b"", b"MATLAB 7.3 MAT-file".ljust(512), bytes(1000), b"x" * 500):
        with pytest.raises(MatlabError, match="no MATLAB v5 header"):
            read_matlab(data, "d_skel")
