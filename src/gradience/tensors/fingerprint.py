"""Digests that say whether two files are the same, at two prices.

`content_digest` reads every byte. `sampled_digest` reads about a thousandth of a large file and is
for base models of many gigabytes, where the question is whether the model was replaced.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from blake3 import blake3

from gradience.tensors.content import HEAD_BYTES, is_safetensors, is_zip
from gradience.tensors.regular import regular_file

_CHUNK = 1 << 20
_BLOCK = 1 << 12
_STRIDE = 1 << 22
_MAX_BLOCKS = 4096
# A zip archive ends in a list of its entries with a CRC-32 of each: about 100 bytes an entry.
_ZIP_TAIL = 1 << 20
_SEVERAL = "gradience.tensors content of several files v1"


def content_digest(paths: Iterable[Path]) -> str:
    """BLAKE3 of the content of files, names apart; memory is bounded by one chunk.

    Parameters
    ----------
    paths : iterable of Path
        In the order that matters to the caller.

    Returns
    -------
    str
        `blake3:<64 hex digits>`: for one file, what `b3sum` prints.

    Raises
    ------
    TensorFileError
        If a file cannot be read.
    """
    digests = [_whole(path) for path in paths]
    if len(digests) == 1:
        return f"blake3:{digests[0].hex()}"
    # Keyed by its purpose, so that no single file can be made to have the digest of several.
    several = blake3(b"".join(digests), derive_key_context=_SEVERAL)
    return f"blake3:{several.hexdigest()}"


def _whole(path: Path) -> bytes:
    hasher = blake3()
    buffer = memoryview(bytearray(_CHUNK))
    with regular_file(path) as (file, _):
        while count := file.readinto(buffer):  # type: ignore[attr-defined]
            hasher.update(buffer[:count])
    return hasher.digest()


def sampled_digest(file: BinaryIO, size: int) -> str:
    """BLAKE3 of a file's size, its safetensors header, and blocks at fixed places.

    Of an open file and not of a path: who opens it reads the very content that this is of.

    A block of 4 KiB is read where each tensor of a safetensors file begins, every 4 MiB (at larger
    steps above 16 GiB, so that 4096 blocks are enough), and at the end: of a zip archive its last
    1 MiB, where the checksums of its entries are. A change that leaves the size, the header and
    every block alone is not seen: a tensor that was trained further or replaced is, an edit of a
    few numbers within one need not be. A file of less than 4 MiB is read whole.

    Parameters
    ----------
    file : binary file
        Seekable; where it stands does not matter, and is another place afterwards.
    size : int
        Bytes.

    Returns
    -------
    str
        `blake3-sampled:<64 hex digits>`; never equal to a `content_digest`.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    hasher = blake3(size.to_bytes(8, "little"))
    file.seek(0)
    head = file.read(HEAD_BYTES)
    header = int.from_bytes(head[:8], "little") if is_safetensors(head) else 0
    dense = size if size < _STRIDE else min(8 + header, size)
    file.seek(0)
    beginning = file.read(dense)
    hasher.update(beginning)
    stride = max(_STRIDE, -(-size // _MAX_BLOCKS))
    tensors = _tensor_starts(beginning, header) if dense < size else ()
    for start in sorted({*range(dense, size, stride), *tensors}):
        file.seek(start)
        hasher.update(file.read(_BLOCK))
    tail = _ZIP_TAIL if is_zip(head) else _BLOCK
    file.seek(max(size - tail, 0))
    hasher.update(file.read(tail))
    return f"blake3-sampled:{hasher.hexdigest()}"


def _tensor_starts(beginning: bytes, header: int) -> Iterator[int]:
    """Where the tensors of a safetensors file begin; nothing where its header does not say."""
    try:
        entries = json.loads(beginning[8 : 8 + header]).values()
    except (ValueError, RecursionError):
        return  # a damaged header is refused, with its reason, when the file is opened
    for entry in entries:
        offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
        if isinstance(offsets, list) and offsets and type(offsets[0]) is int and offsets[0] >= 0:
            yield 8 + header + offsets[0]
