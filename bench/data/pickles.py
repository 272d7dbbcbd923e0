"""Reads pickles that hold plain values and numeric arrays, and executes nothing that they ask for.

A pickle is a program: it names functions and has them called. Here a name is looked up in a short list of stand-ins that build
what numpy's own would build from their arguments, and nothing else exists. Whatever is not on the list ends the reading.
"""

import mmap
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from bench.data.dataset import DataError

_KINDS = "biuf"  # truth values, whole numbers, floating-point numbers
_AXES = 8
_NEEDLESS = (pickle.EMPTY_SET[0], pickle.ADDITEMS[0], pickle.FROZENSET[0])  # sets: much memory for a byte
_REMEDY = "copy it again, or take the files that it was made of"


class RefusedError(Exception):
    """The pickle asks for something that is not on the list, or its numbers do not belong together."""


class _StandIn:
    """A function that a pickle may call. It cannot be given a state, as other objects of a pickle can."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]):
        object.__setattr__(self, "_call", call)

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise RefusedError("it gives a state to a function")


class _Type:
    """A numeric type: what `numpy.dtype` stands for in a pickle."""

    __slots__ = ("name", "order")

    def __init__(self, name: Any):
        if not isinstance(name, str) or len(name) != 2 or name[0] not in _KINDS or name[1] not in "1248":
            text = name if isinstance(name, str) else type(name).__name__
            raise RefusedError(f"it holds an array of type {text[:20]!r}, expected numbers")
        self.name, self.order = name, "<"

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
            raise RefusedError("it holds an array of no known byte order")
        self.order = state[1]

    def dtype(self) -> np.dtype:
        return np.dtype(self.order + self.name)


class _Array:
    """An array: filled once, from bytes of exactly its size."""

    __slots__ = ("array",)

    def __init__(self) -> None:
        self.array: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        if self.array is not None or not isinstance(state, tuple) or len(state) != 5:
            raise RefusedError("it fills an array in an unknown way")
        _, shape, kind, columns_first, data = state
        self.array = _filled(data, kind, shape, "F" if columns_first else "C")


def _filled(data: Any, kind: Any, shape: Any, order: Any) -> np.ndarray:
    if not isinstance(kind, _Type) or not isinstance(data, bytes | bytearray) or order not in ("C", "F"):
        raise RefusedError("it holds an array of other things than numbers")
    whole = isinstance(shape, tuple) and len(shape) <= _AXES and all(type(n) is int and 0 <= n < 2**63 for n in shape)
    dtype = kind.dtype()
    count = 1
    for extent in shape if whole else ():
        count *= extent
    if not whole or count * dtype.itemsize != len(data):
        raise RefusedError(f"an array of shape {shape if whole else '?'} does not fit its {len(data)} bytes")
    return np.frombuffer(bytes(data), dtype).reshape(shape, order=order)


class _Unpickler(pickle._Unpickler):
    # The one in Python, on purpose: the one in C grows a table to the size of whatever index a pickle names.

    def __init__(self, file: mmap.mmap):
        super().__init__(file)
        self._allowance = 2 * len(file) + 1024  # bytes that stand-ins may make in all

    def find_class(self, module: str, name: str) -> Any:
        calls = {
            ("_codecs", "encode"): self._encode,
            ("numpy", "dtype"): lambda name, *how: _Type(name),
            ("numpy", "ndarray"): lambda *arguments: _refuse("it makes an array without its numbers"),
            **{(f"numpy.{core}.multiarray", "_reconstruct"): lambda *of: _Array() for core in ("core", "_core")},
            **{(f"numpy.{core}.multiarray", "scalar"): self._scalar for core in ("core", "_core")},
            **{(f"numpy.{core}.numeric", "_frombuffer"): self._from_buffer for core in ("core", "_core")},
        }
        if (module, name) not in calls:
            raise RefusedError(f"it asks for {module}.{name}, which plain data do not need; nothing was executed")
        return _StandIn(calls[module, name])

    def load_bytearray8(self) -> None:  # the library's makes an array of the size stated before it reads
        (size,) = struct.unpack("<Q", self.read(8))
        self._spend(size)
        self.append(bytearray(self.read(size)))

    def load_setitem(self) -> None:
        _check_keys(self.stack[-2:-1])
        super().load_setitem()

    def load_setitems(self) -> None:
        _check_keys(self.stack[::2])  # those since the mark
        super().load_setitems()

    def load_dict(self) -> None:
        _check_keys(self.stack[::2])
        super().load_dict()

    dispatch: ClassVar = {
        **{code: load for code, load in pickle._Unpickler.dispatch.items() if code not in _NEEDLESS},
        pickle.BYTEARRAY8[0]: load_bytearray8,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.DICT[0]: load_dict,
    }

    def persistent_load(self, pid: Any) -> Any:
        raise RefusedError("it asks for an object outside the file")

    def _encode(self, text: Any, coding: Any = "latin1") -> bytes:
        if not isinstance(text, str) or coding != "latin1":
            raise RefusedError("it encodes in another way than numpy does")
        self._spend(len(text))
        return text.encode("latin1")

    def _scalar(self, kind: Any, data: Any) -> Any:
        return _filled(data, kind, (), "C").item()

    def _from_buffer(self, data: Any, kind: Any, shape: Any, order: Any, axes: Any = None) -> _Array:
        found = _Array()
        self._spend(len(data))
        array = _filled(data, kind, shape, "C" if order == "K" else order)
        found.array = array.transpose(axes) if order == "K" else array
        return found

    def _spend(self, size: int) -> None:
        self._allowance -= size
        if self._allowance < 0:
            raise RefusedError("it unfolds to more than it holds")


def _check_keys(keys: list[Any]) -> None:
    """Texts and numbers are hashed in no time; nested tuples can take as long as they like."""
    if any(not isinstance(key, str | bytes | int | float | None) for key in keys):
        raise RefusedError("it names entries of a table by other things than texts and numbers")


def _refuse(problem: str) -> Any:
    raise RefusedError(problem)


def read_pickle(path: Path) -> Any:
    """What a pickle of plain values holds: None, truth values, numbers, texts, lists, tuples, dicts, and `_Array` for arrays.

    Memory is bounded by the size of the file: a few times for data, up to a hundred times for a file of empty lists. Nothing is
    imported or executed on the pickle's behalf.

    Raises:
        DataError: if it holds anything else, or is cut or no pickle.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _Unpickler(content).load()
    except RefusedError as error:
        raise DataError(f"{path} is refused: {error}") from None
    except Exception as error:  # damaged pickles raise nearly anything
        text = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path} is no whole pickle of plain values ({text[:100]}); {_REMEDY}") from None


def as_array(value: Any) -> np.ndarray | None:
    """The array of a value of `read_pickle`; None if it is something else, or was never filled."""
    return value.array if isinstance(value, _Array) else None
