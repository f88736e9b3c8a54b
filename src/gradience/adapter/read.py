"""Open an adapter: a location, a target or a state dict becomes one `Adapter`.

The names of the tensors decide which dialect reads a file, and exactly one must answer: a file
that two formats claim would have two scales. A PEFT file without its config is refused, because
its scale is in the config and nowhere else.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from blake3 import blake3

from gradience.adapter.config import LARGEST_CONFIG, AdapterConfig, parse_config
from gradience.adapter.dialects import DIALECTS
from gradience.adapter.dialects.dialect import Dialect
from gradience.adapter.finding_kinds import UNREAD_TENSORS, WEIGHTS_SAVED_TWICE
from gradience.adapter.layout import CONFIG, AdapterLocation, no_weights
from gradience.adapter.parts import Parts
from gradience.adapter.records import Adapter
from gradience.adapter.source import find_one
from gradience.errors import (
    AdapterConfigError,
    AdapterError,
    TensorFileError,
    UnsupportedAdapterError,
)
from gradience.findings import Finding
from gradience.tensors.fingerprint import content_digest
from gradience.tensors.opening import open_tensor_file, tensors_in_memory
from gradience.tensors.regular import regular_file
from gradience.tensors.stored import StoredTensor
from gradience.tensors.tensor_file import TensorFile

_IN_MEMORY = "the state dict"
_SHOWN = 3
_PEFT_PREFIX = "base_model.model."

# What a file says about its training and its base. Others of kohya's metadata name the data set,
# its directories and every tag in it: megabytes, and nobody's business in a report.
_TOLD = (
    "ss_network_module",
    "ss_network_dim",
    "ss_network_alpha",
    "ss_network_args",
    "ss_base_model_version",
    "ss_sd_model_name",
    "ss_sd_model_hash",
    "ss_new_sd_model_hash",
    "modelspec.architecture",
    "modelspec.title",
    "lora_adapter_metadata",
)
_BASE_KEY = "ss_sd_model_name"


@runtime_checkable
class HasToDict(Protocol):
    """A config object such as `peft.LoraConfig`."""

    def to_dict(self) -> dict[str, Any]:
        """Its fields."""


@contextmanager
def opened(location: AdapterLocation) -> Iterator[Adapter]:
    """The adapter at a location, with its file mapped for as long as the block lasts.

    Raises
    ------
    UnreadableError
        As `read_adapter`.
    """
    with _open(location) as file:
        yield _adapter(location, file)


def read_adapter(location: AdapterLocation) -> Adapter:
    """The adapter at a location; its file stays mapped for as long as the adapter is in use.

    Raises
    ------
    AdapterNotFoundError
        If the weights are not there.
    AdapterError
        If the files contradict one another, or a PEFT file has no config.
    UnsupportedAdapterError
        If no dialect, or more than one, knows the names of its tensors.
    TensorFileError
        If the weights file is damaged, hostile, a Git LFS pointer, or no weights file.
    """
    return _adapter(location, _open(location))


def open_adapter(target: str | os.PathLike[str]) -> Adapter:
    """The one adapter that a path or a Hub id names.

    Raises
    ------
    UsageError
        If it names several; lists them.
    UnreadableError
        As `find_one` and `read_adapter`.
    """
    return read_adapter(find_one(target))


def adapter_from_state_dict(
    state_dict: Mapping[str, Any],
    config: AdapterConfig | Mapping[str, Any] | HasToDict | None = None,
    *,
    metadata: Mapping[str, str] | None = None,
    source: str = _IN_MEMORY,
) -> Adapter:
    """An adapter whose tensors are in memory; nothing is copied.

    Parameters
    ----------
    state_dict : mapping of str to numpy.ndarray or torch.Tensor
        With the names of any dialect: `get_peft_model_state_dict(model)` for PEFT.
    config : mapping, peft config or AdapterConfig, optional
        What adapter_config.json would hold. PEFT's names need one.
    metadata : mapping of str to str, optional
        What a safetensors file would carry.
    source : str
        What to call it in messages and reports.

    Raises
    ------
    UsageError
        If a value is no array.
    AdapterError, UnsupportedAdapterError
        As `read_adapter`.
    """
    known = _known_config(config)
    tensors = tensors_in_memory(state_dict)
    told = dict(metadata or {})
    dialect, parts = _parts(tensors, known, told, source)
    return _record(
        source=source,
        files=(),
        dialect=dialect,
        parts=parts,
        config=known,
        metadata=told,
        fingerprint=_digest(tensors, known),
    )


def _open(location: AdapterLocation) -> TensorFile:
    if location.config is not None and not os.path.lexists(location.weights):
        raise no_weights(location.weights.parent)
    return open_tensor_file(location.weights)


def read_config(path: Path) -> AdapterConfig:
    """Read adapter_config.json.

    Raises
    ------
    AdapterConfigError, UnsupportedAdapterError
        As `parse_config`, and if it is no file that can be read.
    """
    try:
        with regular_file(path) as (file, _):
            content = file.read(LARGEST_CONFIG + 1)
    except TensorFileError as error:
        raise AdapterConfigError(str(error), remedy=error.remedy) from error
    return parse_config(content, str(path))


def _adapter(location: AdapterLocation, file: TensorFile) -> Adapter:
    config = None if location.config is None else read_config(location.config)
    dialect, parts = _parts(file.tensors, config, file.metadata, str(location.weights))
    files = [path for path in (location.weights, location.config) if path is not None]
    return _record(
        source=location.source,
        files=tuple(str(path) for path in files),
        dialect=dialect,
        parts=parts,
        config=config,
        metadata=file.metadata,
        findings=(*_beside(location), *_skipped(file)),
        fingerprint=content_digest(files),
    )


def _record(
    *,
    source: str,
    files: tuple[str, ...],
    dialect: Dialect,
    parts: Parts,
    config: AdapterConfig | None,
    metadata: Mapping[str, str],
    fingerprint: str,
    findings: tuple[Finding, ...] = (),
) -> Adapter:
    told = _told(metadata)
    return Adapter(
        source=source,
        files=files,
        dialect=dialect.name,
        layers=parts.layers,
        extras=parts.extras,
        unread=parts.unread,
        config=told if config is None else config.raw,
        base_model=told.get(_BASE_KEY) if config is None else config.base_model,
        base_revision=None if config is None else config.base_revision,
        peft_type=_type_of(parts) if config is None else config.peft_type,
        findings=(*findings, *parts.findings),
        fingerprint=fingerprint,
    )


def _parts(
    tensors: Mapping[str, StoredTensor],
    config: AdapterConfig | None,
    metadata: Mapping[str, str],
    source: str,
) -> tuple[Dialect, Parts]:
    """The dialect of these tensors and what it makes of them."""
    dialect = _dialect_of(tensors, source)
    if dialect.name == "peft" and config is None:
        raise AdapterError(
            f"{source} has PEFT's names and no {CONFIG}: what the factors are multiplied by is "
            "not known",
            remedy=f"Put the {CONFIG} of the same run beside adapter_model.safetensors.",
        )
    try:
        return dialect, dialect.read(tensors, config, metadata)
    except AdapterError as error:
        if source in str(error) or (config is not None and config.source in str(error)):
            raise
        raise type(error)(f"{source}: {error}", remedy=error.remedy) from error


def _dialect_of(tensors: Mapping[str, StoredTensor], source: str) -> Dialect:
    """The one dialect that knows these names."""
    if tensors and all(name.startswith(_PEFT_PREFIX) for name in tensors):
        return DIALECTS["peft"]  # nobody else writes it, and the others need not be imported
    known = [dialect for dialect in DIALECTS.values() if dialect.recognises(tensors)]
    if len(known) == 1:
        return known[0]
    if not tensors:
        raise AdapterError(f"{source} holds no tensors", remedy="Save or download it again.")
    if known:
        raise UnsupportedAdapterError(
            f"{source} mixes the names of {' and '.join(d.name for d in known)}: "
            + _some(list(tensors)),
            remedy="Split it into one file per format.",
        )
    raise UnsupportedAdapterError(
        f"{source} has no names of an adapter (tried {', '.join(DIALECTS)}): "
        + _some(list(tensors)),
        remedy="Name an adapter; a full model goes with --base-model.",
    )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(name[:120] for name in names[:_SHOWN]) + more


def _beside(location: AdapterLocation) -> tuple[Finding, ...]:
    if not location.alternatives:
        return ()
    others = " and ".join(path.name for path in location.alternatives)
    return (
        WEIGHTS_SAVED_TWICE.found(
            f"{location.weights.name} and {others} lie side by side; "
            f"{location.weights.name} was read",
            remedy=f"Delete {others}: loaders do not read it.",
        ),
    )


def _skipped(file: TensorFile) -> tuple[Finding, ...]:
    """What a torch checkpoint holds beside tensors."""
    if not file.skipped:
        return ()
    first = next(iter(file.skipped.items()))
    return (
        UNREAD_TENSORS.found(
            f"{len(file.skipped)} entries were not read, such as {first[0]}: {first[1]}",
            modules=file.skipped,
        ),
    )


def _told(metadata: Mapping[str, str]) -> dict[str, Any]:
    """What of a file's metadata stands for a config: no `None` in words, JSON as what it holds."""
    told: dict[str, Any] = {
        key: value for key, value in metadata.items() if key in _TOLD and value not in ("", "None")
    }
    for key in ("ss_network_args", "lora_adapter_metadata"):
        try:
            told |= {key: json.loads(told[key])} if key in told else {}
        except (ValueError, RecursionError):
            continue  # shown as the text it is; a dialect that needs it has refused it by now
    return told


def _type_of(parts: Parts) -> str:
    """The PEFT type that the layers amount to, for a file without a config."""
    methods = {layer.method for layer in parts.layers}
    return methods.pop().upper() if methods in ({"loha"}, {"lokr"}) else "LORA"


def _known_config(
    config: AdapterConfig | Mapping[str, Any] | HasToDict | None,
) -> AdapterConfig | None:
    if config is None or isinstance(config, AdapterConfig):
        return config
    fields = config.to_dict() if isinstance(config, HasToDict) else config
    return parse_config(fields, "the config")


def _digest(tensors: Mapping[str, StoredTensor], config: AdapterConfig | None) -> str:
    """BLAKE3 of names, types, shapes and numbers; the order of the names does not matter."""
    hasher = blake3(derive_key_context="gradience adapter state dict v1")
    for name in sorted(tensors):
        tensor = tensors[name]
        hasher.update(repr((name, tensor.dtype, tensor.shape)).encode())
        hasher.update(tensor.read().tobytes())
        tensor.release()
    raw = {} if config is None else dict(config.raw)
    hasher.update(json.dumps(raw, sort_keys=True, default=_plain).encode())
    return f"blake3:{hasher.hexdigest()}"


def _plain(value: object) -> object:
    """What a config object holds beside JSON's types: sets have no order of their own."""
    return sorted(map(str, value)) if isinstance(value, set | frozenset) else str(value)
