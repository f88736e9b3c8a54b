"""What a file is by its first bytes, whatever its name says.

A download that went wrong leaves something under the right name: a Git LFS pointer, a login page,
the words "Entry not found". Saying which one it is saves the reader an hour.
"""

from pathlib import Path

from gradience.errors import LfsPointerError, TensorFileError, shown

HEAD_BYTES = 512
"""How much of a file's beginning the functions of this module want to see."""

MAX_HEADER_BYTES = 100_000_000
"""Limit of the safetensors format on its header (`MAX_HEADER_SIZE` in `tensor.rs`)."""

_LFS = b"version https://git-lfs.github.com/spec/"
_MAGICS = (
    (b"PK\x03\x04", "a zip archive (a torch checkpoint, or an .npz)"),
    (b"GGUF", "a GGUF file (llama.cpp)"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras)"),
    (b"\x93NUMPY", "a numpy .npy file"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
)


def is_safetensors(head: bytes) -> bool:
    """Whether the bytes begin as a safetensors file does: a length, then a JSON object.

    Examples
    --------
    >>> is_safetensors(b"\\x02" + bytes(7) + b"{}")
    True
    """
    length = int.from_bytes(head[:8], "little")
    return length <= MAX_HEADER_BYTES and head[8:].lstrip(b" \t\r\n").startswith(b"{")


def is_zip(head: bytes) -> bool:
    """Whether the bytes begin as a zip archive does; torch saves in one since 1.6."""
    return head.startswith(b"PK\x03\x04")


def is_pickle(head: bytes) -> bool:
    """Whether the bytes begin as a pickle of protocol 2 to 5 does.

    A length of 640 begins with the same two bytes, so ask `is_safetensors` first.
    """
    return len(head) > 1 and head[0] == 0x80 and 2 <= head[1] <= 5


def foreign_content(head: bytes) -> str | None:
    """Name what a file is when it is not a safetensors file; None when it cannot be told.

    Examples
    --------
    >>> foreign_content(b"<!DOCTYPE html><html>")
    'an HTML page'
    >>> foreign_content(b"Entry not found")
    "a text file that begins with 'Entry not found'"
    """
    for magic, name in _MAGICS:
        if head.startswith(magic):
            return name
    if is_pickle(head):
        return "a pickle (a torch checkpoint in its old form)"
    if head[257:262] == b"ustar":
        return "a tar archive"
    if head and not head.strip(b"\0"):
        return "a file of zeros: its space was allocated and never written"
    return _text_content(head)


def _text_content(head: bytes) -> str | None:
    start = head.lstrip()[:64]
    if not start or any(byte < 9 for byte in head):
        return None
    if start.lower().startswith((b"<!doctype", b"<html", b"<head", b"<!--")):
        return "an HTML page"
    if start.startswith(b"<?xml"):
        return "an XML document (a storage server's error message?)"
    text = start.decode("utf-8", errors="ignore")
    first_line = text.partition("\n")[0].rstrip()
    # Three bytes may be missing from a character that was cut at the end.
    if len(text.encode()) < len(start) - 3 or not first_line or not first_line.isprintable():
        return None
    return f"a text file that begins with {shown(first_line[:40])}"


def refuse_lfs_pointer(path: Path | str, head: bytes) -> None:
    """Refuse the text that Git leaves where it did not fetch a large file.

    Raises
    ------
    LfsPointerError
        Names the object and its size.

    References
    ----------
    https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
    """
    if not head.startswith(_LFS):
        return
    lines = head.decode("utf-8", errors="replace").splitlines()
    facts = dict(line.split(" ", 1) for line in lines if " " in line)
    oid, size = facts.get("oid", ""), facts.get("size", "")
    named = f"{oid[:80]} of {size} bytes" if oid.isprintable() and size.isdecimal() else "not named"
    raise LfsPointerError(
        f"{path} is a Git LFS pointer, not the weights (object {named})",
        remedy="Run `git lfs pull` in that repository, or fetch the file with `hf download`.",
    )


def refuse_empty(path: Path | str, size: int) -> None:
    """Refuse a file of no bytes.

    Raises
    ------
    TensorFileError
    """
    if size == 0:
        raise TensorFileError(
            f"{path} is empty (0 bytes)",
            remedy="Download or save it again; a full disk leaves such files.",
        )
