"""Pickles of plain values are read, and nothing that a pickle asks for is executed."""

import collections
import os
import pickle
import pickletools
import struct

import numpy as np
import pytest

from bench.data.dataset import DataError
from bench.data.pickles import as_array, read_pickle


def write(path, data):
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_come_back(tmp_path, protocol):
    value = ({"a": [1, -(2**70), 2.5, None, True], "é": ("x", b"yz", [])}, list(range(300)))
    assert read_pickle(write(tmp_path / "p", pickle.dumps(value, protocol))) == value


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", ["<f2", "<f4", ">f4", "f8", "i8", "u1", "?"])
@pytest.mark.parametrize("order", ["C", "F", "other"])
def test_arrays_come_back(tmp_path, protocol, kind, order):
    array = np.asarray(np.arange(24).reshape(2, 3, 4) % 7, dtype=kind, order="F" if order == "F" else "C")
    if order == "other":
        array = array.transpose(1, 0, 2)
    back = as_array(read_pickle(write(tmp_path / "p", pickle.dumps([array], protocol)))[0])
    np.testing.assert_array_equal(back, array)
    assert back.dtype == array.dtype


def test_numbers_of_numpy_come_back(tmp_path):
    assert read_pickle(write(tmp_path / "p", pickle.dumps([np.int64(-5), np.float32(0.5)]))) == [-5, 0.5]


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


PAYLOADS = {
    "shell": lambda mark: pickle.dumps(Calls(os.system, f"touch {mark}")),
    "eval": lambda mark: pickle.dumps(Calls(eval, f"__import__('os').mkdir({str(mark)!r})")),
    "folder": lambda mark: pickle.dumps(Calls(os.makedirs, str(mark))),
    "within a list": lambda mark: pickle.dumps([1, {"keypoint": Calls(os.mkdir, str(mark))}]),
    "an old one": lambda mark: b"cos\nsystem\n(S'touch " + str(mark).encode() + b"'\ntR.",
    "an object": lambda mark: b"(i__main__\nMark\n.",
    "a plain class": lambda mark: pickle.dumps(collections.OrderedDict(a=1)),
    "numpy's loader": lambda mark: pickle.dumps(Calls(np.load, str(mark))),
    "array of objects": lambda mark: pickle.dumps(np.array([{}, 1], dtype=object)),
    "array of texts": lambda mark: pickle.dumps(np.array(["a"])),
    "array without numbers": lambda mark: pickle.dumps(Calls(np.ndarray, (2**40,))),
    "state of a function": lambda mark: b"\x80\x02c_codecs\nencode\nq\x00}q\x01X\x01\x00\x00\x00aK\x01sb.",
    "another coding": lambda mark: pickle.dumps(Calls(__import__("codecs").encode, "a", "rot13")),
    "outside object": lambda mark: b"\x80\x02K\x01Q.",
    "registered extension": lambda mark: b"\x80\x02\x82\x01.",
}


@pytest.mark.parametrize("payload", PAYLOADS)
def test_nothing_is_executed(tmp_path, payload):
    mark = tmp_path / "mark"
    path = write(tmp_path / "p", PAYLOADS[payload](mark))
    with pytest.raises(DataError, match=f"{path} is (refused|no whole pickle)"):
        read_pickle(path)
    assert not mark.exists()


@pytest.mark.parametrize("payload", ["shell", "eval", "folder", "within a list", "an old one"])
def test_the_payloads_work_elsewhere(tmp_path, payload):
    """Otherwise the test above would show nothing."""
    pickle.loads(PAYLOADS[payload](tmp_path / "mark"))
    assert (tmp_path / "mark").exists()


ENCODED = b"h\x01h\x00\x85R"  # the text under 0, encoded by the function under 1
BOMBS = {
    "index of 2**31": b"\x80\x02K\x01r\xff\xff\xff\x7f0.",
    "text of 2**40 bytes": b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"x.",
    "bytes of 2**62": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"x.",
    "array of 2**31 bytes": b"\x80\x05\x96" + struct.pack("<Q", 2**31) + b"x.",
    "frame of 2**60": b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"K\x010.",
    "one text encoded a thousand times": b"\x80\x02(X"
    + struct.pack("<I", 1_000_000)
    + b"x" * 1_000_000
    + b"q\x00c_codecs\nencode\nq\x01"
    + ENCODED * 1000
    + b"t.",
}


def billion_laughs():
    """A tuple of ten tuples of ten ..., as a key of a dictionary, whose hash visits them all."""
    value = ("ha",)
    for _ in range(30):
        value = (value,) * 10
    return value


BOMBS |= {
    "a key of 10**30 parts": b"\x80\x02}" + pickle.dumps(billion_laughs(), 2)[2:-1] + b"K\x01s.",
    "a key of 10**30 parts, among others": b"\x80\x02}(" + pickle.dumps(billion_laughs(), 2)[2:-1] + b"K\x01u.",
    "a key of 10**30 parts, from the start": b"\x80\x02(" + pickle.dumps(billion_laughs(), 2)[2:-1] + b"K\x01d.",
    "sets": pickle.dumps([{k} for k in range(100_000)], 4),
    "frozen sets": pickle.dumps([frozenset([k]) for k in range(100_000)], 4),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_memory_is_bounded(tmp_path, bomb, within):
    path = write(tmp_path / "p", BOMBS[bomb])
    with within(1e8), pytest.raises(DataError):
        read_pickle(path)


def test_every_cut_is_noticed(tmp_path):
    whole = pickle.dumps({"annotations": [{"keypoint": np.zeros((1, 2, 3)), "label": 3}]}, 2)
    for size in range(len(whole)):
        with pytest.raises(DataError):
            read_pickle(write(tmp_path / "p", whole[:size]))


def test_arrays_that_do_not_fit_their_bytes_are_refused(tmp_path):
    data = pickle.dumps(np.zeros((4, 5)), 2)
    at = next(position for opcode, argument, position in pickletools.genops(data) if opcode.name == "BININT1" and argument == 5)
    path = write(tmp_path / "p", data[: at + 1] + b"\x06" + data[at + 2 :])
    with pytest.raises(DataError, match=r"an array of shape \(4, 6\) does not fit its 160 bytes"):
        read_pickle(path)
