"""Arrays of numbers in MATLAB v5 files ("Level 5 MAT-File Format", MathWorks).

The known readers of this format trust the sizes and types that a file states; a damaged file can end the process. This one reads
what skeleton data need, real arrays of numbers by their names, and checks every size against what is there.
"""

import itertools
import struct
import zlib
from collections.abc import Iterator

import numpy as np

_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_NUMERIC_CLASSES = range(6, 16)  # double, single, and whole numbers of 8 to 64 bits
_COMPLEX = 0x0800
_PARTS = 5  # flags, extents, name, real and imaginary values of an array; others have more
_LARGEST = 2**26  # bytes that a compressed element may unpack to


class MatlabError(ValueError):
    """The file is not of this format, or damaged."""


def read_matlab(data: bytes, name: str) -> np.ndarray | None:
    """The real array of numbers of that name; None if there is none.

    Raises:
        MatlabError: if the file is no MATLAB v5 file, is cut or damaged, or the array is no real array of numbers.
    """
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None or data[:6] != b"MATLAB" or data[124:126] not in (b"\x00\x01", b"\x01\x00"):
        raise MatlabError("it has no MATLAB v5 header")
    for kind, content in _elements(data[_HEADER:], order):
        if kind == _COMPRESSED:
            kind, content = next(_elements(_unpacked(content), order), (0, b""))
        if kind == _MATRIX and content:
            parts = [*itertools.islice(_elements(content, order), _PARTS)]
            if len(parts) >= 3 and parts[2][1].rstrip(b"\x00") == name.encode():
                return _array(parts, order)
    return None


def _unpacked(data: bytes) -> bytes:
    worker = zlib.decompressobj()
    try:
        found = worker.decompress(data, _LARGEST)
    except zlib.error as error:
        raise MatlabError(f"a compressed element is damaged ({error})") from None
    if not worker.eof:
        raise MatlabError("a compressed element is cut short, or unpacks to more than any clip")
    return found


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """(type, content) of the elements that follow each other."""
    at = 0
    while at < len(data):
        if at + 8 > len(data):
            raise MatlabError("it ends within the head of an element")
        kind, size = struct.unpack_from(f"{order}II", data, at)
        start = at + 8
        if kind >> 16:  # small: size and type share a word, the content is in the next one
            kind, size, start = kind & 0xFFFF, kind >> 16, at + 4
            if size > 4:
                raise MatlabError(f"a small element has {size} bytes")
        if start + size > len(data):
            raise MatlabError(f"an element of {size} bytes is cut short")
        yield kind, data[start : start + size]
        at = at + 8 if start == at + 4 else start + size + (0 if kind == _COMPRESSED else -size % 8)


def _array(parts: list[tuple[int, bytes]], order: str) -> np.ndarray:
    (_, flags), (_, extents), _, *values = parts
    if len(flags) != 8 or len(extents) % 4 or len(values) != 1:
        raise MatlabError("the array is no real array of numbers")
    (word,) = struct.unpack_from(f"{order}I", flags)
    kind, content = values[0]
    if word & 0xFF not in _NUMERIC_CLASSES or word & _COMPLEX or kind not in _NUMBERS:
        raise MatlabError("the array is no real array of numbers")
    shape = tuple(int(extent) for extent in np.frombuffer(extents, f"{order}i4"))
    dtype = np.dtype(order + _NUMBERS[kind])
    count = 1
    for extent in shape:
        count *= extent
    if any(extent < 0 for extent in shape) or count * dtype.itemsize != len(content):
        raise MatlabError(f"an array of shape {shape} does not fit its {len(content)} bytes")
    return np.frombuffer(content, dtype).reshape(shape, order="F")
