"""The tensors of a loaded checkpoint, and what it holds beside them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from gradience.errors import TensorFileError, shown
from gradience.tensors.stored import StoredTensor
from gradience.tensors.torch_arrays import is_torch_tensor, stored_torch_tensor, unreadable_reason
from gradience.tensors.torch_pages import MappedStorages

_RESAVE = "Save the state dict itself: torch.save(model.state_dict(), ...)."


class StateDict(msgspec.Struct, frozen=True, kw_only=True):
    """What was found: every key of the checkpoint is in one of the two."""

    tensors: Mapping[str, StoredTensor]
    skipped: Mapping[str, str]


def state_dict_tensors(
    path: Path, checkpoint: object, *, file_nbytes: int, mapped: MappedStorages
) -> StateDict:
    """Sort the entries of a checkpoint into tensors and the rest.

    A training checkpoint wraps its state dict: `{"state_dict": {...}, "epoch": 3}`. It is
    unwrapped when it has no tensors of its own and exactly one mapping of tensors.

    Parameters
    ----------
    path : Path
        For the errors.
    checkpoint : object
        What `torch.load` returned.
    file_nbytes : int
        Size of the file: a tensor that claims more is a repeated view, and is not unfolded.
    mapped : MappedStorages

    Raises
    ------
    TensorFileError
        If it is not a mapping, or several of its entries are mappings of tensors.
    """
    if not isinstance(checkpoint, Mapping):
        raise TensorFileError(
            f"{path} holds an object of type {type(checkpoint).__name__}, not a state dict",
            remedy=_RESAVE,
        )
    skipped: dict[str, str] = {}
    inner = _wrapped(path, checkpoint)
    if inner is not None:
        wrapper, checkpoint_of = inner
        skipped = {_key(key): _reason(value) for key, value in checkpoint.items() if key != wrapper}
        checkpoint = checkpoint_of
    tensors: dict[str, StoredTensor] = {}
    for key, value in checkpoint.items():
        reason = _why_skipped(key, value, file_nbytes)
        if reason is None:
            tensors[key] = stored_torch_tensor(key, value, release=mapped.release_of(value))
        else:
            skipped[_key(key)] = reason
    return StateDict(tensors=tensors, skipped=skipped)


def _wrapped(path: Path, checkpoint: Mapping[Any, Any]) -> tuple[Any, Mapping[Any, Any]] | None:
    if any(is_torch_tensor(value) for value in checkpoint.values()):
        return None
    inside = [(key, value) for key, value in checkpoint.items() if _has_tensors(value)]
    if len(inside) > 1:
        names = ", ".join(shown(key) for key, _ in inside[:8])
        raise TensorFileError(
            f"{path} holds {len(inside)} state dicts ({names}); which one is meant?",
            remedy="Save the one that is meant: torch.save(checkpoint[name], ...).",
        )
    return inside[0] if inside else None


def _has_tensors(value: object) -> bool:
    return isinstance(value, Mapping) and any(is_torch_tensor(v) for v in value.values())


def _key(key: object) -> str:
    return key if isinstance(key, str) else shown(key)


def _reason(value: object) -> str:
    return f"it is a value of type {type(value).__name__}, not a tensor"


def _why_skipped(key: object, value: Any, file_nbytes: int) -> str | None:
    if not is_torch_tensor(value):
        return _reason(value)
    if not isinstance(key, str):
        return f"its key is a {type(key).__name__}, not a name"
    reason = unreadable_reason(value)
    if reason is None and value.numel() * value.element_size() > file_nbytes:
        claimed = value.numel() * value.element_size()
        return f"it claims {claimed} bytes, more than the file's {file_nbytes}"
    return reason
