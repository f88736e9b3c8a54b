"""The files that a resume would load: is the archive complete, is the file as long as it says?

`torch.save` writes a zip whose directory stands at the end, so a save that was cut off has none.
For that nothing needs to be hashed or loaded. A deep look reads every byte: the archive has a
checksum for each of its parts, and weights that are all zeros were never written.
"""

import os
import zipfile
from pathlib import Path

from gradience.errors import TensorFileError
from gradience.tensors.header import parse_header

_ARCHIVES = (".pt", ".pth", ".bin")
_START = b"PK\x03\x04"
_END = b"PK\x05\x06"
_TAIL = 65_557  # the longest end of a zip: 22 bytes and a comment
_PICKLE = b"\x80"
_LENGTH = 8
_LARGEST_HEADER = 100_000_000
_CHUNK_BYTES = 2**20


def cut_off(path: Path) -> str:
    """Why a file of tensors is not complete; empty where nothing says so.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    size = path.stat().st_size
    if path.suffix in _ARCHIVES:
        return _archive(path, size)
    return _safetensors(path, size) if path.suffix == ".safetensors" else ""


def damaged(path: Path) -> str:
    """Why a file is not what was written, by all of its bytes; empty where nothing says so.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    problem = cut_off(path)
    if problem:
        return problem
    if path.suffix in _ARCHIVES and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            try:
                bad = archive.testzip()
            except (zipfile.BadZipFile, EOFError) as error:
                return f"its archive is damaged: {error}"
        return f"the checksum of {bad} in it is wrong" if bad else ""
    return _zeros(path) if path.suffix == ".safetensors" else ""


def _zeros(path: Path) -> str:
    """The header of safetensors has no checksum; of lost blocks, zeros are what is left."""
    with path.open("rb") as file:
        start = _LENGTH + int.from_bytes(file.read(_LENGTH), "little")
        file.seek(start)
        empty = True
        while empty and (chunk := file.read(_CHUNK_BYTES)):
            empty = chunk.count(0) == len(chunk)
        data = file.tell() > start
    return "it holds only zeros: its data were never written" if empty and data else ""


def _archive(path: Path, size: int) -> str:
    if size == 0:
        return "it is empty"
    with path.open("rb") as file:
        start = file.read(len(_START))
        if start[:1] == _PICKLE:  # the format before torch 1.6 has no end to look for
            return ""
        if start != _START:
            return "it is no archive of torch.save"
        file.seek(max(0, size - _TAIL), os.SEEK_SET)
        return "" if _END in file.read() else f"cut off after {size} bytes: its end is missing"


def _safetensors(path: Path, size: int) -> str:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH), "little")
        if size < _LENGTH or length > min(_LARGEST_HEADER, size - _LENGTH):
            return f"{size} bytes, less than its header"
        try:
            parse_header(path, file.read(length), data_nbytes=size - _LENGTH - length)
        except TensorFileError as error:
            return str(error).removeprefix(f"{path}: ")
    return ""
