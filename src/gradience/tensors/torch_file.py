"""Torch checkpoints (`.bin`, `.pt`) without running code from them.

A checkpoint is a pickle, and a pickle is a program. torch's restricted unpickler
(`weights_only=True`, sound since 2.6: CVE-2025-32434) builds tensors and plain containers and
refuses the rest; nothing here goes round it, and no environment variable switches it off. torch is
imported only here, and only when such a file is met.
"""

import os
import pickle
import re
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

from gradience.errors import MissingExtraError, TensorFileError, UnsafePickleError, shown
from gradience.tensors.content import (
    HEAD_BYTES,
    foreign_content,
    is_pickle,
    is_safetensors,
    is_zip,
    refuse_empty,
    refuse_lfs_pointer,
)
from gradience.tensors.fingerprint import sampled_digest
from gradience.tensors.pickle_scan import foreign_globals
from gradience.tensors.regular import regular_file
from gradience.tensors.state_dict import state_dict_tensors
from gradience.tensors.tensor_file import TensorFile
from gradience.tensors.torch_pages import MappedStorages

_EXTRA = 'Install it with: pip install "gradience[torch]"'
_MIN_TORCH = (2, 6)
_MAX_PICKLE_BYTES = 100_000_000
_RESAVE = "Convert it to safetensors where you trust it, or ask its author to."
_AGAIN = "Download the file again, or save it again."
_PICKLE_IN_ZIP = re.compile(r"(?:.*/)?data\.pkl")

# What torch's loader raises on damaged files depends on the byte that is damaged. These are the
# built-in kinds of "this data is wrong"; what is left out are KeyboardInterrupt and its like.
_LOAD_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.PickleError,
    struct.error,
    zipfile.BadZipFile,
)


def open_torch(path: str | os.PathLike[str], *, sample: bool = False) -> TensorFile:
    """Open a torch checkpoint: a state dict, plain or wrapped once.

    Parameters
    ----------
    path : path
        A file that `torch.save` wrote, in the zip format (mapped, read when asked) or in the one
        before torch 1.6 (loaded whole).
    sample : bool
        Take its `sampled_digest`.

    Returns
    -------
    TensorFile
        `skipped` says what else the file holds.

    Raises
    ------
    MissingExtraError
        If torch 2.6 or later is not installed.
    UnsafePickleError
        If the file asks for more than tensors; it is not executed. Names what it asked for.
    LfsPointerError
        If a Git LFS pointer stands in its place.
    TensorFileError
        If the file is missing, damaged, truncated, holds no state dict, or is replaced meanwhile.
    """
    path = Path(path)
    with regular_file(path) as (file, size):
        status = os.fstat(file.fileno())
        zipped = _check_content(path, file, size)
        program = _zipped_pickle(path, file, size) if zipped else _head_of_pickle(file)
        torch = import_torch(path)
        mapped = MappedStorages()
        checkpoint = _load(torch, path, file, program, mapped if zipped else None)
        # torch maps what the name means to it.
        if not os.path.samestat(status, path.stat()):
            raise TensorFileError(
                f"{path} was replaced by another file while it was being opened",
                remedy="Try again.",
            )
        sampled = sampled_digest(file, size) if sample else None
    found = state_dict_tensors(path, checkpoint, file_nbytes=size, mapped=mapped)
    return TensorFile(
        path=path,
        format="torch",
        nbytes=size,
        tensors=found.tensors,
        status=status,
        sampled=sampled,
        skipped=found.skipped,
    )


def import_torch(path: Path) -> Any:
    """The torch module, imported in silence and recent enough to be safe.

    Raises
    ------
    MissingExtraError
        If it is missing, broken, or older than 2.6.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import torch  # noqa: PLC0415 - an extra, and two seconds
    except ImportError as error:
        raise MissingExtraError(
            f"{path} is a torch checkpoint, and torch cannot be imported: {error}", remedy=_EXTRA
        ) from error
    check_torch_version(path, str(torch.__version__))
    return torch


def check_torch_version(path: Path, version: str) -> None:
    """Refuse a torch whose restricted unpickler can be made to run code.

    Raises
    ------
    MissingExtraError
        If `version` is older than 2.6.

    References
    ----------
    CVE-2025-32434: `torch.load(weights_only=True)` up to 2.5.1 executes code.

    Examples
    --------
    >>> check_torch_version(Path("model.bin"), "2.13.0+cpu")
    """
    numbers = tuple(int(n) for n in re.findall(r"\d+", version)[:2])
    if numbers < _MIN_TORCH:
        raise MissingExtraError(
            f"{path} is a torch checkpoint, and torch {version} is not safe to read it with: "
            "before 2.6 a file can run code (CVE-2025-32434)",
            remedy=_EXTRA,
        )


def _check_content(path: Path, file: BinaryIO, size: int) -> bool:
    """Whether the checkpoint is in the zip format; refuses what is no checkpoint at all."""
    refuse_empty(path, size)
    head = file.read(HEAD_BYTES)
    refuse_lfs_pointer(path, head)
    if is_zip(head) or is_pickle(head):
        return is_zip(head)
    kind = "a safetensors file" if is_safetensors(head) else foreign_content(head)
    what = f"is {kind}" if kind else f"begins with {shown(head[:8])}"
    raise TensorFileError(f"{path} {what}, not a torch checkpoint", remedy=_AGAIN)


def _zipped_pickle(path: Path, file: BinaryIO, size: int) -> bytes:
    """The pickle of a zip checkpoint, once the archive is known to be whole and plainly stored."""
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            # torch.save stores; a compressed entry could grow a thousandfold in memory.
            packed = [e.filename for e in entries if e.compress_type != zipfile.ZIP_STORED]
            pickles = [e for e in entries if _PICKLE_IN_ZIP.fullmatch(e.filename)]
            if packed:
                raise TensorFileError(
                    f"{path}: {shown(packed[0])} in it is compressed; torch.save stores",
                    remedy=_AGAIN,
                )
            if len(pickles) != 1:
                raise TensorFileError(
                    f"{path} is a zip archive with {len(pickles)} entries named data.pkl: not a "
                    "torch checkpoint",
                    remedy=_AGAIN,
                )
            if pickles[0].file_size > min(_MAX_PICKLE_BYTES, size):
                raise TensorFileError(
                    f"{path}: its data.pkl claims {pickles[0].file_size} bytes of the file's "
                    f"{size}; {_MAX_PICKLE_BYTES} at most are read",
                    remedy=_AGAIN,
                )
            return archive.read(pickles[0])
    except _LOAD_ERRORS as error:
        raise TensorFileError(
            f"{path} is a damaged or truncated zip archive of {size} bytes: {_brief(error)}",
            remedy=_AGAIN,
        ) from error


def _head_of_pickle(file: BinaryIO) -> bytes:
    # A checkpoint of the old format is five pickles and then the data. The state dict's is the
    # fourth, and the scan only serves the error message, so a part is enough.
    file.seek(0)
    return file.read(1 << 20)


def _load(
    torch: Any, path: Path, file: BinaryIO, program: bytes, mapped: MappedStorages | None
) -> Any:
    """What the checkpoint holds; with `mapped`, its storages stay in the file until read."""
    # torch hands a name ending in .safetensors to another reader, so it gets the open file then,
    # which it cannot map.
    by_name = mapped is not None and not str(path).endswith(".safetensors")
    file.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(
                os.fspath(path) if by_name else file,
                map_location=mapped.keep if mapped is not None and by_name else "cpu",
                weights_only=True,
                mmap=by_name,
            )
    except pickle.UnpicklingError as error:
        raise _refusal(path, str(error), program) from error
    except _LOAD_ERRORS as error:
        raise TensorFileError(
            f"{path} cannot be read as a torch checkpoint: {_brief(error)}", remedy=_AGAIN
        ) from error


def _refusal(path: Path, said: str, program: bytes) -> TensorFileError:
    """The restricted unpickler said no: because of what the file asks for, or because of damage."""
    asked = re.search(r"GLOBAL (\S+) ", said)
    names = foreign_globals(program)
    # torch names builtins without their module.
    if asked and not any(name.removeprefix("builtins.") == asked[1] for name in names):
        names = (asked[1], *names)
    if names:
        some = ", ".join(shown(name) for name in names[:5]) + (", ..." if names[5:] else "")
        return UnsafePickleError(
            f"{path} asks to run code when it is loaded ({some}); nothing of it was executed",
            remedy=_RESAVE,
        )
    reason = said.partition("WeightsUnpickler error: ")[2] or said.rpartition("trusted source.")[2]
    reason = " ".join(reason.partition("Check the documentation")[0].split())
    return TensorFileError(
        f"{path} cannot be read as a torch checkpoint: {reason[:200]}", remedy=_AGAIN
    )


def _brief(error: BaseException) -> str:
    first_line = str(error).partition("\n")[0].strip()
    return f"{type(error).__name__}: {first_line[:200]}" if first_line else type(error).__name__
