"""Reading CTranslate2's ``model.bin``: a flat list of named arrays, with aliases for shared ones.

Layout (little endian; ``src/models/model.cc`` of CTranslate2): u32 binary version, specification name, u32 revision,
u32 number of variables; each variable is a name, u8 rank, u32 per dimension, u8 type, u32 number of bytes, the bytes;
then u32 number of aliases, each a pair of names. A string is a u16 length that counts its closing NUL.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from otoscope.errors import ModelError

#: type byte -> numpy type; bfloat16 (5) has no numpy type and is widened to float32 on reading
_DTYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16, 5: np.uint16}
_BFLOAT16 = 5
#: binary versions that spell the type as a byte; all of faster-whisper's are 5 or 6
_VERSIONS = range(4, 7)


@dataclass(frozen=True)
class Ct2File:
    """What a ``model.bin`` holds: the specification's name, its revision, and the arrays (aliases resolved)."""

    spec: str
    revision: int
    variables: dict[str, np.ndarray]

    def array(self, name: str) -> np.ndarray:
        """The array ``name`` as floats, de-quantised when it was stored as integers.

        CTranslate2 stores ``round(w * scale)`` with one scale per output row (int8) or per array (int16).

        Raises:
            ModelError: there is no such array.
        """
        if name not in self.variables:
            raise ModelError(f"the CTranslate2 model has no variable '{name}': it is not a complete {self.spec}.")
        values = self.variables[name]
        if values.dtype.kind != "i":
            return values
        scale = self.array(f"{name}_scale").astype(np.float32)
        return values.astype(np.float32) / scale.reshape(scale.shape + (1,) * (values.ndim - scale.ndim))


class _Cursor:
    """A bounds-checked walk through the file: a length read from a damaged file never reaches past its end."""

    def __init__(self, data: np.ndarray, path: Path) -> None:
        self.data, self.path, self.at = data, path, 0

    def take(self, n_bytes: int) -> np.ndarray:
        if self.at + n_bytes > len(self.data):
            raise ModelError(
                f"'{self.path}' ends at byte {len(self.data)} where byte {self.at + n_bytes} was expected: "
                "it is truncated; download or convert it again."
            )
        piece = self.data[self.at : self.at + n_bytes]
        self.at += n_bytes
        return piece

    def number(self, code: str) -> int:
        return struct.unpack("<" + code, self.take(struct.calcsize(code)).tobytes())[0]

    def string(self) -> str:
        try:
            return self.take(self.number("H")).tobytes().rstrip(b"\0").decode()
        except UnicodeDecodeError:
            raise ModelError(f"'{self.path}' is not a CTranslate2 model: a name in it is not text.") from None


def read_ct2(path: Path) -> Ct2File:
    """Read a ``model.bin`` without copying it: the arrays are views of the memory-mapped file.

    Args:
        path: the ``model.bin`` file.

    Raises:
        ModelError: the file is missing, empty, truncated, or not a CTranslate2 model of binary version 4 to 6.
    """
    if not path.is_file():
        raise ModelError(f"'{path}' does not exist: a CTranslate2 folder needs its model.bin.")
    if path.stat().st_size == 0:
        raise ModelError(f"'{path}' is empty: download or convert it again.")
    cursor = _Cursor(np.memmap(path, dtype=np.uint8, mode="r"), path)
    version = cursor.number("I")
    if version not in _VERSIONS:
        raise ModelError(
            f"'{path}' is not a CTranslate2 model we can read: its first word is {version}, "
            f"expected a binary version from {_VERSIONS.start} to {_VERSIONS.stop - 1}; convert it again with "
            "a current ct2-transformers-converter."
        )
    spec, revision = cursor.string(), cursor.number("I")
    variables = dict(_variable(cursor) for _ in range(cursor.number("I")))
    for _ in range(cursor.number("I")):
        alias, name = cursor.string(), cursor.string()
        if name not in variables:
            raise ModelError(f"'{path}' is damaged: '{alias}' stands for '{name}', which is not in it.")
        variables[alias] = variables[name]
    return Ct2File(spec, revision, variables)


def _variable(cursor: _Cursor) -> tuple[str, np.ndarray]:
    name = cursor.string()
    shape = tuple(cursor.number("I") for _ in range(cursor.number("B")))
    kind = cursor.number("B")
    raw = cursor.take(cursor.number("I"))
    if kind not in _DTYPES:
        raise ModelError(f"'{cursor.path}' is damaged: variable '{name}' has the unknown type {kind}.")
    dtype = np.dtype(_DTYPES[kind])
    if int(np.prod(shape, dtype=np.int64)) * dtype.itemsize != len(raw):
        raise ModelError(f"'{cursor.path}' is damaged: variable '{name}' of shape {shape} has {len(raw)} bytes.")
    values = np.frombuffer(raw, dtype=dtype).reshape(shape)
    if kind == _BFLOAT16:
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return name, values
