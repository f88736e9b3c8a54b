"""Files of tensors, right and wrong, made byte by byte."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from gradience.errors import GradienceError


def entry(dtype: str = "F32", shape: Any = (1,), offsets: Any = (0, 4)) -> dict[str, Any]:
    """One tensor of a safetensors header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def safetensors_bytes(header: Any, data: bytes = b"", *, length: int | None = None) -> bytes:
    """A safetensors file; a header of bytes is taken as it is, `length` may lie."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def assert_refused(error: GradienceError, path: Path, *values: str) -> None:
    """An error that names the file and the values, says what to do, and exits with 3."""
    text = str(error)
    assert str(path) in text
    for value in values:
        assert value in text
    assert error.remedy
    assert error.exit_code == 3


def shared(name: str) -> Path:
    """A file of the project's shared folder, beside the repository; skips where it is absent."""
    path = Path(__file__).parents[2] / "shared" / name
    if not path.exists():
        pytest.skip(f"../shared/{name} is not on this machine")
    return path
