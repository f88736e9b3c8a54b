"""Put norms into the cache: measured from a whole base model, or brought from elsewhere."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from gradience.audit.base import cache
from gradience.audit.base.finding_kinds import BASE_NORMS_CACHE_UNWRITABLE
from gradience.audit.base.norms import Settings, identity_of, recalled_or_measured
from gradience.audit.base.norms_only import GivenNorms
from gradience.audit.base.source import BaseModel
from gradience.audit.norms.matrices import matrices
from gradience.errors import StorageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What is in the cache now.

    Attributes
    ----------
    path : Path
        The file of this base model.
    weights : int
        Weights with norms.
    unmeasurable : int
        Weights that have none.
    left_out : dict of str to str
        Packed tensors, by the format they are packed in.
    bytes_read : int
        Stored bytes that had to be read; 0 when all was there already.
    """

    path: Path
    weights: int
    unmeasurable: int
    left_out: dict[str, str]
    bytes_read: int


def measure_base(base: BaseModel, settings: Settings) -> Kept:
    """Measure every weight of a base model, and remember it.

    Raises
    ------
    BaseModelError
        If a shard cannot be had.
    StorageError
        If the cache cannot be written: the work would be lost.
    """
    weights, left_out = matrices(base.tensors)
    known = recalled_or_measured(weights, base, settings)
    for finding in known.findings:
        if finding.code == BASE_NORMS_CACHE_UNWRITABLE.code:
            raise StorageError(finding.message, remedy=finding.remedy)
    return Kept(
        path=cache.entry_path(settings.cache_dir, identity_of(base)),
        weights=len(weights.keys() & known.norms.keys()),
        unmeasurable=len(weights.keys() & known.reasons.keys()),
        left_out=left_out,
        bytes_read=known.nbytes,
    )


def bring(
    given: GivenNorms, directory: Path, *, base: BaseModel | None = None, now: datetime
) -> Kept:
    """Add norms from elsewhere to the cache.

    Parameters
    ----------
    given : GivenNorms
    directory : Path
        Of the cache.
    base : BaseModel, optional
        File them under this base model: a copy of the one they were measured on, whose numbers
        were checked.
    now : datetime
        Aware.

    Raises
    ------
    StorageError
        If the disk refuses.
    """
    identity = identity_of(given.base() if base is None else base)
    path = cache.entry_path(directory, identity)
    refused = cache.remember(path, identity, given.norms, given.content.unmeasurable, now=now)
    if refused is not None:
        raise StorageError(refused.message, remedy=refused.remedy)
    return Kept(
        path=path,
        weights=len(given.norms),
        unmeasurable=len(given.content.unmeasurable),
        left_out={},
        bytes_read=0,
    )
