"""Put norms into the cache: measured from a whole base model, or brought from elsewhere."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from msgspec.structs import replace

from gradience.audit.base import cache
from gradience.audit.base.base_norm import BaseNorm
from gradience.audit.base.finding_kinds import BASE_NORMS_CACHE_UNWRITABLE
from gradience.audit.base.known import Settings, identity_of, recalled_or_measured
from gradience.audit.base.norms_only import GivenNorms
from gradience.audit.base.source import BaseModel
from gradience.audit.norms.matrices import matrices
from gradience.audit.norms.records import Verification
from gradience.audit.norms.verify import Check, verify
from gradience.errors import StorageError, UsageError


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


def bring(given: GivenNorms, directory: Path, *, now: datetime) -> Kept:
    """Add norms from elsewhere to the cache on the word of their file, which stays with them.

    Parameters
    ----------
    given : GivenNorms
    directory : Path
        Of the cache.
    now : datetime
        Aware.

    Raises
    ------
    UsageError
        If they are in the cache already: that file would be told by itself.
    StorageError
        If the disk refuses.
    """
    identity = identity_of(given.base())
    if Path(given.source) == cache.entry_path(directory, identity):
        raise UsageError(
            f"{given.source} is in the cache already",
            remedy="Name the base model to check a sample of it: --base-model.",
        )
    return _brought(given, given.norms, identity, directory, now)


def bring_checked(
    given: GivenNorms, base: BaseModel, how: Check, directory: Path, *, now: datetime
) -> tuple[Verification, Kept | None]:
    """Add norms from elsewhere to the cache if a sample of them, measured again, agrees.

    They are filed under the base in hand: that of the file, or a copy of it in other files.

    Parameters
    ----------
    given : GivenNorms
    base : BaseModel
    how : Check
    directory : Path
        Of the cache.
    now : datetime
        Aware.

    Returns
    -------
    Verification, and Kept or None
        None where a number is wrong: nothing is added.

    Raises
    ------
    BaseModelError, TransferError, DownloadRefusedError
        As `verify`.
    StorageError
        If the disk refuses.
    """
    found = verify(given, base, how)
    if not found.numbers_agree:
        return found, None
    checked = {key: replace(norm, told_by="") for key, norm in given.norms.items()}
    return found, _brought(given, checked, identity_of(base), directory, now)


def _brought(
    given: GivenNorms,
    norms: Mapping[str, BaseNorm],
    identity: cache.Identity,
    directory: Path,
    now: datetime,
) -> Kept:
    path = cache.entry_path(directory, identity)
    refused = cache.remember(path, identity, norms, given.content.unmeasurable, now=now)
    if refused is not None:
        raise StorageError(refused.message, remedy=refused.remedy)
    return Kept(
        path=path,
        weights=len(norms),
        unmeasurable=len(given.content.unmeasurable),
        left_out={},
        bytes_read=0,
    )
