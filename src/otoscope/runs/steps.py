"""What a step of a run computed, as a file: JSON when it is small and plain, .npz when it holds arrays. No pickles."""

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from otoscope.runs.files import write_bytes

_ARRAY = "__array__"  # key of the placeholder that stands for an array in the JSON tree


def encode(value: Any) -> tuple[str, bytes]:
    """(suffix, bytes) of a tree of dicts, lists, tuples, numbers, text, None and numpy arrays.

    Raises TypeError for anything else (objects, arrays of objects): a step returns data, not live things.
    """
    arrays: list[np.ndarray] = []
    tree = json.dumps(_strip(value, arrays), ensure_ascii=False)
    if not arrays:
        return ".json", tree.encode()
    out = io.BytesIO()
    named: dict[str, Any] = {f"a{i}": a for i, a in enumerate(arrays)}
    np.savez_compressed(out, tree=np.frombuffer(tree.encode(), np.uint8), **named)
    return ".npz", out.getvalue()


def decode(suffix: str, data: bytes) -> Any:
    """Inverse of ``encode``; tuples come back as lists. Raises ValueError when the bytes are not what it wrote."""
    try:
        if suffix == ".json":
            return _fill(json.loads(data), {})
        with np.load(io.BytesIO(data), allow_pickle=False) as store:
            return _fill(json.loads(bytes(store["tree"])), dict(store))
    except (KeyError, OSError, EOFError, zipfile.BadZipFile, ValueError) as problem:
        raise ValueError("not a step file") from problem


def save(stem: Path, value: Any) -> Any:
    """Write ``value`` to ``stem`` + .json or .npz; return it as ``load`` will: fresh and resumed runs see the same."""
    suffix, data = encode(value)
    write_bytes(stem.with_name(stem.name + suffix), data)
    return decode(suffix, data)


def load(stem: Path) -> tuple[bool, Any]:
    """(found, value). A damaged file counts as not found: it is computed again."""
    for suffix in (".json", ".npz"):
        path = stem.with_name(stem.name + suffix)
        if path.is_file():
            try:
                return True, decode(suffix, path.read_bytes())
            except (ValueError, OSError):
                path.unlink(missing_ok=True)
    return False, None


def _strip(value: Any, arrays: list[np.ndarray]) -> Any:
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            raise TypeError("a step returned an array of Python objects; give it a numeric or text dtype")
        arrays.append(value)
        return {_ARRAY: len(arrays) - 1}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        wrong = next((k for k in value if not isinstance(k, str) or k == _ARRAY), None)
        if wrong is not None:
            raise TypeError(f"a step returned a dict with the key {wrong!r}; keys are text other than {_ARRAY!r}")
        return {k: _strip(v, arrays) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_strip(v, arrays) for v in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"a step returned a {type(value).__name__}; return numbers, text, lists, dicts or numpy arrays")


def _fill(tree: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if isinstance(tree, dict):
        if _ARRAY in tree:
            return arrays[f"a{tree[_ARRAY]}"]
        return {k: _fill(v, arrays) for k, v in tree.items()}
    return [_fill(v, arrays) for v in tree] if isinstance(tree, list) else tree
