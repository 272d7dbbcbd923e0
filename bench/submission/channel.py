"""Messages between the evaluator and a worker that runs foreign code: JSON and arrays, never pickles.

A message is two lengths (8 bytes each, little-endian), a JSON text and a safetensors file. Nothing in it is executed, and no more
is read than the receiver allows for.
"""

import json
import struct
from collections.abc import Mapping
from typing import IO, Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

_LENGTHS = struct.Struct("<QQ")
LARGEST_TEXT = 2**23  # bytes


class MessageError(ValueError):
    """What came is no message, or is larger than allowed."""


def send(stream: IO[bytes], value: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> None:
    """Writes a message."""
    text = json.dumps(value).encode()
    arrays = save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in (tensors or {}).items()})
    stream.write(_LENGTHS.pack(len(text), len(arrays)))
    stream.write(text)
    stream.write(arrays)
    stream.flush()


def receive(stream: IO[bytes], largest: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Reads a message.

    Args:
        largest: Most bytes of its arrays.

    Raises:
        EOFError: if the stream has ended.
        MessageError: if it is damaged or larger.
    """
    text_size, array_size = _LENGTHS.unpack(_read(stream, _LENGTHS.size))
    if text_size > LARGEST_TEXT or array_size > largest:
        raise MessageError(f"a message of {text_size} and {array_size} bytes, where {largest} are allowed")
    try:
        value = json.loads(_read(stream, text_size))
        tensors = load(_read(stream, array_size))
    except (ValueError, RecursionError, SafetensorError, KeyError, TypeError) as error:
        raise MessageError(f"a damaged message: {type(error).__name__}: {str(error)[:200]}") from error
    if not isinstance(value, dict):
        raise MessageError("a message that is no JSON object")
    return value, tensors


def _read(stream: IO[bytes], size: int) -> bytes:
    pieces, left = [], size
    while left:
        piece = stream.read(min(left, 2**22))
        if not piece:
            raise EOFError
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)
