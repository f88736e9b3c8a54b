"""What the config.json of a base model says that its tensors do not: a hint, never needed.

Without one, names and shapes decide alone; so what cannot be read says nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gradience.errors import TensorFileError
from gradience.tensors.strict_json import strict_json_object

MAX_CONFIG_BYTES = 10_000_000
"""Of a config.json that is read."""

CONFIG = "config.json"
QUANTIZE_CONFIG = "quantize_config.json"
"""Where AutoGPTQ and AutoAWQ wrote what is in config.json now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What a config says.

    Attributes
    ----------
    tied : bool or None
        `tie_word_embeddings`; None when there is no config.
    quantisation : mapping
        `quantization_config`; empty when there is none.
    """

    tied: bool | None = None
    quantisation: Mapping[str, Any] = field(default_factory=dict)


def read_config(read: Callable[[str], bytes | None]) -> Config:
    """The config of a model.

    Parameters
    ----------
    read : callable
        Gives the bytes of a file beside the weights, by its name; None where there is none.

    Examples
    --------
    >>> read_config({"config.json": b'{"model_type": "llama"}'}.get)
    Config(tied=True, quantisation={})
    >>> read_config({}.get)
    Config(tied=None, quantisation={})
    """
    found = _object(CONFIG, read)
    if found is None:
        return Config(quantisation=_object(QUANTIZE_CONFIG, read) or {})
    text = found.get("text_config")
    inner = text if isinstance(text, dict) else {}
    return Config(
        tied=_tied((inner, found)),
        quantisation=_quantisation((found, inner)) or _object(QUANTIZE_CONFIG, read) or {},
    )


def _tied(parts: tuple[Mapping[str, Any], ...]) -> bool:
    """transformers 4 leaves the key out where it is True, the default; models of several parts
    keep it in the part that is the language model.
    """
    for part in parts:
        if isinstance(part.get("tie_word_embeddings"), bool):
            return bool(part["tie_word_embeddings"])
    return True


def _quantisation(parts: tuple[Mapping[str, Any], ...]) -> dict[str, Any]:
    for part in parts:
        if isinstance(part.get("quantization_config"), dict):
            return dict(part["quantization_config"])
    return {}


def _object(name: str, read: Callable[[str], bytes | None]) -> dict[str, Any] | None:
    data = read(name)
    try:
        return None if data is None else strict_json_object(name, data, what="config")
    except TensorFileError:
        return None
