"""One door to tensors: a file of either format by its content, or a state dict in memory."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gradience.errors import TensorFileError, UsageError, shown
from gradience.tensors.content import HEAD_BYTES, is_pickle, is_safetensors, is_zip
from gradience.tensors.dtypes import dtype_name
from gradience.tensors.regular import regular_file
from gradience.tensors.safetensors_file import open_safetensors
from gradience.tensors.stored import Array, StoredTensor
from gradience.tensors.tensor_file import TensorFile
from gradience.tensors.torch_arrays import is_torch_tensor, stored_torch_tensor, unreadable_reason

_TORCH_SUFFIXES = {".bin", ".pt", ".pth", ".ckpt"}


def open_tensor_file(path: str | os.PathLike[str], *, sample: bool = False) -> TensorFile:
    """Open a safetensors file or a torch checkpoint, told apart by content and not by name.

    Parameters
    ----------
    path : path
    sample : bool
        Take its `sampled_digest`.

    Raises
    ------
    TensorFileError, LfsPointerError, UnsafePickleError, MissingExtraError
        As `open_safetensors` and `open_torch`.
    """
    path = Path(path)
    with regular_file(path) as (file, _):
        head = file.read(HEAD_BYTES)
    torch_content = is_zip(head) or is_pickle(head)
    torch_name = path.suffix.lower() in _TORCH_SUFFIXES
    if not is_safetensors(head) and (torch_content or torch_name):
        # zipfile, ctypes and pickletools are not needed for a safetensors file.
        from gradience.tensors.torch_file import open_torch  # noqa: PLC0415

        return open_torch(path, sample=sample)
    return open_safetensors(path, sample=sample)


def tensors_in_memory(state_dict: Mapping[str, Any]) -> dict[str, StoredTensor]:
    """Arrays that are in memory already, as if a file held them.

    Parameters
    ----------
    state_dict : mapping of str to numpy.ndarray or torch.Tensor
        Nothing is copied where the array is in C order and its machine's byte order; a later
        change of the array is seen.

    Raises
    ------
    UsageError
        If a key is not a string or a value is neither kind of array, or not of plain numbers.

    Examples
    --------
    >>> found = tensors_in_memory({"a": np.ones((2, 3), np.float32)})
    >>> found["a"].dtype, found["a"].shape, found["a"].nbytes
    ('F32', (2, 3), 24)
    """
    return {name: _in_memory(name, value) for name, value in state_dict.items()}


def _in_memory(name: object, value: Any) -> StoredTensor:
    if not isinstance(name, str):
        raise UsageError(
            f"the state dict has the key {shown(name)}, which is not a string",
            remedy="Pass a mapping of parameter names to arrays.",
        )
    if is_torch_tensor(value):
        reason = unreadable_reason(value)
        if reason is None:
            return stored_torch_tensor(name, value)
        raise _not_an_array(name, reason)
    if not isinstance(value, np.ndarray):
        raise _not_an_array(name, f"it is a {type(value).__name__}")
    try:
        dtype = dtype_name(value.dtype)
    except TensorFileError as error:
        raise _not_an_array(name, str(error)) from error
    return StoredTensor(
        name=name,
        dtype=dtype,
        shape=value.shape,
        nbytes=value.nbytes,
        read=lambda: _read_only(value),
    )


def _not_an_array(name: str, reason: str) -> UsageError:
    return UsageError(
        f"{shown(name)} in the state dict cannot be used: {reason}",
        remedy="Pass dense numpy arrays or torch tensors of plain numbers.",
    )


def _read_only(value: Array) -> Array:
    # `order="C"` and not ascontiguousarray, which gives a scalar a dimension.
    view = np.asarray(value, dtype=value.dtype.newbyteorder("="), order="C").view(np.ndarray)
    view.setflags(write=False)
    return view
