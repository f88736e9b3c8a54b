"""Digests that say whether two files are the same, at two prices.

`content_digest` reads every byte. `sampled_digest` reads about a thousandth of a large file and is
for base models of many gigabytes, where the question is whether the model was replaced.
"""

from collections.abc import Iterable
from pathlib import Path

from blake3 import blake3

from gradience.tensors.content import HEAD_BYTES, is_safetensors
from gradience.tensors.regular import regular_file

_CHUNK = 1 << 20
_BLOCK = 1 << 12
_STRIDE = 1 << 22
_MAX_BLOCKS = 4096
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


def sampled_digest(path: Path) -> str:
    """BLAKE3 of a file's size, its safetensors header, and blocks at fixed places.

    A block of 4 KiB is read every 4 MiB (at larger steps above 16 GiB, so that 4096 blocks are
    enough), and the last one. A change that leaves the size, the header and every block alone is
    not seen: any other training of the same model is, an edit of a few numbers need not be. A file
    of less than 4 MiB is read whole.

    Returns
    -------
    str
        `blake3-sampled:<64 hex digits>`; never equal to a `content_digest`.

    Raises
    ------
    TensorFileError
        If the file cannot be read.
    """
    hasher = blake3()
    with regular_file(path) as (file, size):
        hasher.update(size.to_bytes(8, "little"))
        head = file.read(HEAD_BYTES)
        header = int.from_bytes(head[:8], "little") if is_safetensors(head) else 0
        dense = size if size < _STRIDE else min(8 + header, size)
        file.seek(0)
        hasher.update(file.read(dense))
        stride = max(_STRIDE, -(-size // _MAX_BLOCKS))
        for start in (*range(dense, size, stride), max(size - _BLOCK, 0)):
            file.seek(start)
            hasher.update(file.read(_BLOCK))
    return f"blake3-sampled:{hasher.hexdigest()}"
