"""Asking the disk: does this much fit, and was it the disk that refused?"""

import contextlib
import errno
import os
from collections.abc import Mapping
from pathlib import Path

from gradience import files
from gradience.errors import StorageError
from gradience.storage.guard.records import Answer, Need
from gradience.storage.guard.words import speaks_of_full_disk
from gradience.storage.room.headroom import Confidence, Headroom, Verdict, headroom, probe

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CANARY_BYTES = 2**20
_COUNT_SECONDS = 2.0


def room_at(place: Path, environ: Mapping[str, str], home: Path) -> Headroom:
    """Every limit at a place; a volume of given size is counted for two seconds at most."""
    return headroom(place, environ=environ, home=home, count_seconds=_COUNT_SECONDS)


def fits(place: Path, need: Need, environ: Mapping[str, str], home: Path) -> Answer:
    """Whether a checkpoint would fit now, by every limit and by asking the file system itself."""
    try:
        asked = probe(place, need.bytes)
        if asked.verdict is Verdict.REFUSED:
            return Answer.NO
        room = room_at(place, environ, home)
    except StorageError:
        return Answer.NO
    if room.inodes is not None and room.inodes < need.inodes:
        return Answer.NO
    proven = asked.verdict is Verdict.FITS
    # A quota that the file system just honoured is not short, whatever its report says: that of
    # btrfs still counts what was deleted a moment ago.
    limits = [x for x in room.limits if not (proven and x.confidence is Confidence.REPORTED)]
    if any(x.bytes is not None and x.bytes < need.bytes for x in limits):
        return Answer.NO
    return Answer.YES if proven else Answer.UNKNOWN


def disk_was_why(error: BaseException, place: Path, missing_bytes: int) -> bool:
    """Whether a failed write failed for want of space.

    The errno is often missing (torch says "unexpected pos", safetensors puts it into its text), so
    the disk is asked too, while what was half written still lies there: would the rest have fitted?
    """
    chain = list(_chain(error))
    if any(isinstance(e, OSError) and e.errno in _FULL for e in chain):
        return True
    if speaks_of_full_disk([str(e) for e in chain]):
        return True
    try:
        verdict = probe(place, max(missing_bytes, _CANARY_BYTES)).verdict
    except StorageError:
        return False
    return verdict is Verdict.REFUSED or (verdict is Verdict.UNPROVEN and _refuses_canary(place))


def _chain(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _refuses_canary(place: Path) -> bool:
    """Really write a little, where reserving proves nothing."""
    canary = place / f".gradience-canary-{os.getpid()}"
    try:
        files.reserve(canary, _CANARY_BYTES)
    except OSError as error:
        return error.errno in _FULL
    finally:
        with contextlib.suppress(OSError):
            canary.unlink(missing_ok=True)
    return False
