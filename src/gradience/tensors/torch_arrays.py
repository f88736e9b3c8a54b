"""Torch tensors as numpy arrays: the same bytes, under the type that numpy or ml_dtypes has.

torch cannot give bfloat16 and float8 to numpy, so they cross as integers of the same width.
"""

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from gradience.errors import TensorFileError, shown
from gradience.tensors.dtypes import numpy_dtype
from gradience.tensors.stored import Array, StoredTensor

_NAMES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "uint16": "U16",
    "int16": "I16",
    "uint32": "U32",
    "int32": "I32",
    "uint64": "U64",
    "int64": "I64",
    "float16": "F16",
    "float32": "F32",
    "float64": "F64",
    "complex64": "C64",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "float8_e8m0fnu": "F8_E8M0",
    "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
}
_CROSSES_AS = {"BF16": "int16"} | dict.fromkeys(
    ("F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), "uint8"
)


def is_torch_tensor(value: object) -> bool:
    """Whether a value is a torch tensor or of a class derived from one; imports nothing."""
    return any(
        kind.__name__ == "Tensor" and kind.__module__ == "torch" for kind in type(value).__mro__
    )


def unreadable_reason(tensor: Any) -> str | None:
    """Why a tensor is not an array of plain numbers; None when it is one."""
    if tensor.device.type == "meta":
        return "it is on the meta device: a shape without numbers"
    if tensor.is_nested:
        return "it is a nested tensor"
    if str(tensor.layout) != "torch.strided":
        return f"its layout is {str(tensor.layout).removeprefix('torch.')}, not dense"
    word = str(tensor.dtype).removeprefix("torch.")
    if word not in _NAMES:
        return f"its type is {word}, which is not a plain number type"
    return None


def stored_torch_tensor(
    name: str, tensor: Any, *, release: Callable[[], None] | None = None
) -> StoredTensor:
    """A torch tensor that `unreadable_reason` lets pass, as a `StoredTensor`.

    Parameters
    ----------
    name : str
    tensor : torch.Tensor
        On any device; strided in any way.
    release : callable, optional
        Gives its pages back when it lies in a mapped file.
    """
    dtype = _NAMES[str(tensor.dtype).removeprefix("torch.")]
    shape = tuple(int(dim) for dim in tensor.shape)
    stored = StoredTensor(
        name=name,
        dtype=dtype,
        shape=shape,
        nbytes=int(tensor.numel()) * int(tensor.element_size()),
        read=lambda: _array(name, tensor, dtype),
    )
    return stored if release is None else replace(stored, release=release)


def _array(name: str, tensor: Any, dtype: str) -> Array:
    import torch  # noqa: PLC0415 - it is loaded, or there would be no tensor

    try:
        plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
        if dtype in _CROSSES_AS:
            plain = plain.view(getattr(torch, _CROSSES_AS[dtype]))
        array: Array = plain.numpy()
    except (RuntimeError, TypeError) as error:
        first_line = str(error).partition("\n")[0]
        raise TensorFileError(
            f"tensor {shown(name)} cannot be read as an array: {first_line}",
            remedy="Save it as a plain dense tensor.",
        ) from error
    view = array.view(numpy_dtype(dtype))
    if not view.flags.aligned:
        view = view.copy()
    view.setflags(write=False)
    return view
