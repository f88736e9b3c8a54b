"""Cheap looks at what a resume would load: is the archive complete, is the file as long as it says.

`torch.save` writes a zip whose directory stands at the end, so a save that was cut off has none.
Hashing is not needed for that, nor is loading.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from gradience.errors import TensorFileError
from gradience.storage.doctor.facts import BadFile
from gradience.storage.inventory.records import Entry, Inventory
from gradience.tensors.header import parse_header

_ARCHIVES = (".pt", ".pth", ".bin")
_START = b"PK\x03\x04"
_END = b"PK\x05\x06"
_TAIL = 65_557  # the longest end of a zip: 22 bytes and a comment
_PICKLE = b"\x80"
_LENGTH = 8
_LARGEST_HEADER = 100_000_000


def bad_files(inventory: Inventory) -> tuple[BadFile, ...]:
    """Files of checkpoints that are cut off, as far as their ends and headers tell."""
    found = []
    for cache in inventory.caches:
        for entry in cache.entries:
            if entry.what == "checkpoint":
                found += list(_of_checkpoint(entry))
    return tuple(found)


def _of_checkpoint(entry: Entry) -> Iterator[BadFile]:
    folder = Path(entry.path)
    try:
        files = sorted(p for p in folder.iterdir() if p.is_file())
    except OSError:
        return
    for path in files:
        try:
            problem = cut_off(path)
        except OSError as error:
            problem = str(error.strerror)
        if problem:
            yield BadFile(path=path, checkpoint=folder, detail=problem)


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
