"""Put norms into the cache: measured from a whole base model, or brought from elsewhere."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from msgspec.structs import replace

from gradience.audit.base import cache
from gradience.audit.base.base_norm import BaseNorm
from gradience.audit.base.known import Known, Settings, identity_of, recalled_or_measured
from gradience.audit.base.norms_file import believable
from gradience.audit.base.norms_only import GivenNorms
from gradience.audit.base.source import BaseModel
from gradience.audit.norms.library import read
from gradience.audit.norms.matrices import matrices
from gradience.audit.norms.records import Kept
from gradience.audit.norms.verify import Check, held_against, verify
from gradience.errors import StorageError, UsageError
from gradience.paths import is_file


def measure_base(base: BaseModel, settings: Settings) -> Kept:
    """Measure every weight of a base model, and remember it.

    What was measured or checked before is not measured again. What stands on the word of a file is.

    Raises
    ------
    BaseModelError
        If a shard cannot be had.
    StorageError
        If the cache cannot be written: the work would be lost.
    """
    for name, shard in base.absent.items():
        raise base.not_here(shard, name)
    weights, left_out = matrices(base.tensors)
    known = recalled_or_measured(weights, base, settings, to_keep=True)
    identity = identity_of(base)
    path = cache.entry_path(settings.cache_dir, identity)
    if known.norms and not path.exists():
        # All of it was known under another name of the same content.
        refused = cache.remember(path, identity, known.norms, known.reasons, now=settings.now)
        if refused is not None:
            raise StorageError(refused.message, remedy=refused.remedy)
    # A file may tell a reason of a weight that has a norm all the same.
    reasons = {k: why for k, why in known.reasons.items() if k in weights.keys() - known.norms}
    return Kept(
        path=str(path),
        weights=len(weights.keys() & known.norms.keys()),
        unchecked=sum(bool(norm.told_by) for norm in known.norms.values()),
        unmeasurable=len(reasons),
        left_out=left_out,
        bytes_read=known.nbytes,
        replaced=len(known.replaced),
        told_wrong=_told_wrong(known, reasons),
    )


def _told_wrong(known: Known, reasons: Mapping[str, str]) -> dict[str, str]:
    """Of the norms that were told and measured now, those that are not what was told."""
    checks = (
        held_against(key, told, known.norms.get(key), reasons.get(key, ""))
        for key, told in known.replaced.items()
    )
    return {check.key: check.reason for check in checks if check.reason}


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
    if _is_kept_as(given, cache.entry_path(directory, identity)):
        raise UsageError(
            f"{given.source} is in the cache already",
            remedy="Name the base model to check a sample of it: --base-model.",
        )
    return _brought(given, given.norms, identity, directory, now)


def bring_checked(
    given: GivenNorms, base: BaseModel, how: Check, directory: Path, *, now: datetime
) -> Kept:
    """Add norms from elsewhere to the cache if a sample of them, measured again, agrees.

    Those of the sample count as checked from then on; the others stay on the word of their file.
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
    Kept
        Where a number is wrong nothing is added, and its `path` is None.

    Raises
    ------
    BaseModelError, TransferError, DownloadRefusedError
        As `verify`.
    StorageError
        If the disk refuses.
    """
    found = verify(given, base, how)
    if not found.numbers_agree:
        return Kept(path=None, weights=0, verification=found)
    identity = identity_of(base)
    told = given.norms
    checked = {check.key: replace(told[check.key], told_by="") for check in found.checked}
    if _is_kept_as(given, cache.entry_path(directory, identity)):
        # The others are there already, and name the file that told them.
        told = {}
    kept = _brought(given, {**told, **checked}, identity, directory, now)
    return replace(kept, verification=found)


def _is_kept_as(given: GivenNorms, path: Path) -> bool:
    """Whether norms were read from that file of the cache."""
    return is_file(given.source) and Path(given.source).resolve() == path.resolve()


def _brought(
    given: GivenNorms,
    norms: Mapping[str, BaseNorm],
    identity: cache.Identity,
    directory: Path,
    now: datetime,
) -> Kept:
    path = cache.entry_path(directory, identity)
    # A weight that is said to have no norm is measured where it can be: nothing is lost by that.
    refused = cache.remember(path, identity, norms, {}, now=now)
    if refused is not None:
        raise StorageError(refused.message, remedy=refused.remedy)
    content = read(path)
    return Kept(
        path=str(path),
        weights=len(believable(content.norms)[0]),
        unchecked=len(cache.unchecked(path, content)),
        unmeasurable=len(content.unmeasurable),
    )
