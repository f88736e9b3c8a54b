"""The file that norms of a base model are kept in, in the cache and wherever they travel to.

A number in such a file is believed only when it makes sense: its type, and the laws between the
norms of one matrix (none is negative, a spectral norm is at most the Frobenius norm).
"""

from collections.abc import Mapping
from math import isfinite, sqrt
from typing import Any

import msgspec
import numpy as np

from gradience import artifacts
from gradience.audit.base.base_norm import BaseNorm
from gradience.audit.base.weights import BaseWeight, TensorFacts

SCHEMA = "gradience.base_norms/v1"
METHOD = "block-lanczos/1"
"""Changes when the numbers of `spectral_norm` change their meaning; older ones are forgotten."""

LARGEST = 64_000_000
"""Bytes that such a file may have. It takes some 320 for each norm and 150 for each tensor: of the
largest models published, with 70 000 matrices of experts and their scales, it has 45 MB."""

_NO_NORMS = (
    "Name a file that `gradience norms export` wrote (on the web the raw file, not its page). A "
    "damaged one in the cache goes with: gradience norms rm FILE"
)

# More than any disk holds, and still a float.
_LARGEST_SIDE = 2**53

# Rounding that laws between three measured norms may show.
_SLACK = 1e-6


class NormsFile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Norms of the weights of one base model.

    Attributes
    ----------
    model : str
        Hub id or name.
    revision : str or None
        Commit of a Hub model.
    fingerprint : str
        `blake3:...` of what the files of the model are; decides, the names are for the reader.
    method : str
        What computed the norms.
    norms : dict of str to Any
        By key of the weight; each a `BaseNorm` when it can be believed, judged one by one.
    unmeasurable : dict of str to str
        Weights without a norm, and why.
    tensors : dict of str to TensorFacts
        Every tensor of the model: with them an adapter is matched without the model.
    tied : bool or None
        `tie_word_embeddings` of its config.
    refused : dict of str to str
        Parameters that are packed and could not be read, and why.
    aliases : dict of str to str
        Names in the running model of tensors that have others in the files (GGUF).
    versions : dict of str to str
        Of the libraries that computed the norms last.
    """

    model: str
    revision: str | None
    fingerprint: str
    method: str
    norms: dict[str, Any]
    unmeasurable: dict[str, str]
    tensors: dict[str, TensorFacts] = {}
    tied: bool | None = None
    refused: dict[str, str] = {}
    aliases: dict[str, str] = {}
    versions: dict[str, str] = {}


def decode(data: bytes, *, source: str) -> NormsFile:
    """The content of a file of norms; its numbers are not judged yet.

    Raises
    ------
    ArtifactError
        If it is not one; `source` names it in the message.
    """
    return artifacts.decode(data, SCHEMA, NormsFile, source=source, remedy=_NO_NORMS)


def versions() -> dict[str, str]:
    """The versions that a file written now carries."""
    return {"numpy": np.__version__}


def believable(norms: Mapping[str, Any]) -> tuple[dict[str, BaseNorm], list[str]]:
    """The entries that make sense, and a doubt about each other one."""
    good: dict[str, BaseNorm] = {}
    doubts: list[str] = []
    for key, entry in norms.items():
        try:
            norm = msgspec.convert(entry, BaseNorm)
        except msgspec.ValidationError as error:
            doubts.append(f"{key}: {error}")
            continue
        reason = _nonsense(norm)
        if reason:
            doubts.append(f"{key}: {reason}")
        else:
            good[key] = norm
    return good, doubts


def is_of(norm: BaseNorm, weight: BaseWeight) -> bool:
    """Whether a norm was measured on a weight of this shape and type."""
    return (norm.shape, norm.dtype) == (weight.stored_shape, weight.dtype)


def named(model: str, revision: str | None) -> str:
    """A model with the start of its commit.

    Examples
    --------
    >>> named("org/tiny", "a1b2c3d4e5f60718"), named("tiny", None)
    ('org/tiny@a1b2c3d4e5f6', 'tiny')
    """
    return f"{model}@{revision[:12]}" if revision else model


def in_full(model: str, revision: str | None) -> str:
    """A model with its whole commit, as a command takes it."""
    return f"{model}@{revision}" if revision else model


def _nonsense(norm: BaseNorm) -> str:
    """Why these numbers cannot be norms of one matrix; empty when they can."""
    return _out_of_range(norm) or _unlawful(norm)


def _out_of_range(norm: BaseNorm) -> str:
    """Which number can be none of its kind."""
    values = (norm.lower, norm.upper, norm.frobenius, norm.width, norm.eta, norm.rounding or 0.0)
    if not all(isfinite(value) for value in values):
        return "a number is not finite"
    if min(values) < 0.0 or norm.passes < 0 or min(norm.shape) < 1:
        return "a number is negative"
    if max(norm.shape) > _LARGEST_SIDE:
        return "no matrix has that shape"
    if norm.width == 0.0 or not 0.0 < norm.eta < 1.0:
        return f"nothing is measured to a width of {norm.width} with eta {norm.eta}"
    return ""


def _unlawful(norm: BaseNorm) -> str:
    """Which law between the norms of one matrix does not hold."""
    if norm.lower > norm.upper:
        return f"lower {norm.lower} is above upper {norm.upper}"
    if norm.upper > norm.frobenius * (1 + _SLACK):
        return f"upper {norm.upper} is above the Frobenius norm {norm.frobenius}"
    # ||W||_F^2 is the sum of at most min(shape) squares, none above ||W||_2^2.
    if norm.frobenius > sqrt(min(norm.shape)) * norm.upper * (1 + _SLACK):
        return f"upper {norm.upper} is too small for the Frobenius norm {norm.frobenius}"
    return ""
