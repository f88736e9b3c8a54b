"""How many bytes and inodes can still be written here?

The free space of the file system is one limit among several: quotas, what a platform promised, and
memory where files live in it. Each is kept with its source and how far to trust it, and the
smallest binds.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from gradience import system
from gradience.errors import UsageError
from gradience.storage.room.known_limits import (
    EPHEMERAL_STORAGE,
    KnownSize,
    known_sizes,
    lies,
)
from gradience.storage.room.probe import ProbeResult, Verdict, probe
from gradience.storage.room.usage import Usage, used_below
from gradience.system.base import existing_parent, free_inodes, space_of
from gradience.system.kubernetes import ephemeral_limit, is_ephemeral
from gradience.system.memory import available, memory_limit
from gradience.system.records import Mount, QuotaLimit
from gradience.system.reserve import may_use_reserve, usable_blocks
from gradience.units import format_size

__all__ = ["Confidence", "Headroom", "Limit", "ProbeResult", "Verdict", "headroom", "probe"]

COUNT_SECONDS = 20.0


class Confidence(StrEnum):
    """How far a figure can be trusted."""

    MEASURED = "measured"  # the system says so, and holds everybody to it
    REPORTED = "reported"  # a quota system says so; it may lag
    ASSUMED = "assumed"  # a rule, or a size that somebody gave


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One limit on what can still be written.

    Attributes
    ----------
    source : str
        `file system`, `user quota`, `memory`, `volume size`, ...
    bytes, inodes : int, optional
        What it still allows; None where it sets no such limit or it could not be found.
    confidence : Confidence
    note : str
        One sentence.
    counted : bool
        Found by counting files, which is slow to ask again.
    """

    source: str
    bytes: int | None
    inodes: int | None
    confidence: Confidence
    note: str
    counted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Headroom:
    """What can still be written below a path.

    Attributes
    ----------
    path : Path
        The existing directory or file that was asked about.
    mount : Mount
    limits : tuple of Limit
        Every limit that was found.
    unasked : tuple of str
        One sentence for each source that did not answer.
    """

    path: Path
    mount: Mount
    limits: tuple[Limit, ...]
    unasked: tuple[str, ...] = ()

    @property
    def binding(self) -> Limit | None:
        """The limit that decides on bytes; None if none is known."""
        known = (limit for limit in self.limits if limit.bytes is not None)
        return min(known, key=lambda limit: limit.bytes or 0, default=None)

    @property
    def binding_inodes(self) -> Limit | None:
        """The limit that decides on inodes; None if none is known."""
        known = (limit for limit in self.limits if limit.inodes is not None)
        return min(known, key=lambda limit: limit.inodes or 0, default=None)

    @property
    def bytes(self) -> int | None:
        """Bytes that can still be written, or None if nothing said so."""
        return self.binding.bytes if self.binding else None

    @property
    def inodes(self) -> int | None:
        """Files and directories that can still be made; None where there is no such limit."""
        return self.binding_inodes.inodes if self.binding_inodes else None

    @property
    def confidence(self) -> Confidence:
        """How far `bytes` can be trusted."""
        return self.binding.confidence if self.binding else Confidence.ASSUMED

    @property
    def sentence(self) -> str:
        """The answer for reading, with the limit that binds."""
        if self.binding is None or self.bytes is None:
            return f"{self.path}: the free space is not known."
        return (
            f"{self.path}: {format_size(self.bytes)} can be written "
            f"({self.binding.source}, {self.confidence}). {self.binding.note}"
        )


def headroom(
    path: str | os.PathLike[str],
    *,
    environ: Mapping[str, str] | None = None,
    home: Path | None = None,
    volume_size: int | None = None,
    count_seconds: float = COUNT_SECONDS,
) -> Headroom:
    """Every limit on what this process can still write below a path.

    Parameters
    ----------
    path : path
        Need not exist: its nearest existing parent is asked.
    environ : mapping, optional
        By default that of the process. `GRADIENCE_VOLUME_SIZE` gives the size of a volume that
        reports its cluster's, `GRADIENCE_EPHEMERAL_STORAGE` a pod's limit (a quantity, or the file
        of the Downward API).
    home : Path, optional
    volume_size : int, optional
        Bytes of the volume that holds the path; goes before the variable.
    count_seconds : float
        How long the content of a volume of given size may be counted; where the time runs out,
        what was counted makes an upper bound of the headroom.

    Raises
    ------
    StorageError
        If the path cannot be looked at.
    UsageError
        If a size that was given is none.
    """
    environ = os.environ if environ is None else environ
    home = Path.home() if home is None else home
    place = existing_parent(Path(path))
    mount = system.mount_of(place)
    answer = system.quotas(place)
    known = known_sizes(place, mount, environ, home, volume_size)
    limits = [
        *_refusals(place, mount),
        _file_system(place, mount, lies(place, mount, environ)),
        *(_quota(limit) for limit in answer.limits),
        *(_known(size, count_seconds) for size in known),
        *_memory(mount),
        *_ephemeral(place, mount, environ, count_seconds),
    ]
    return Headroom(path=place, mount=mount, limits=tuple(limits), unasked=answer.unasked)


def _refusals(place: Path, mount: Mount) -> list[Limit]:
    """Limits of zero: read-only, not permitted."""
    reasons = []
    if mount.read_only:
        reasons.append(("read-only mount", f"{mount.path} is mounted read-only."))
    elif not os.access(place, os.W_OK | (os.X_OK if place.is_dir() else 0)):
        reasons.append(("permission", f"This user may not write to {place}."))
    return [
        Limit(source=source, bytes=0, inodes=0, confidence=Confidence.MEASURED, note=note)
        for source, note in reasons
    ]


def _file_system(place: Path, mount: Mount, lie: str) -> Limit:
    space = space_of(place, mount)
    if space is None:
        return Limit(
            source="file system",
            bytes=None,
            inodes=None,
            confidence=Confidence.ASSUMED,
            note=f"{mount.path} ({mount.fs_type}) did not answer.",
        )
    reserve = may_use_reserve(mount)
    blocks = usable_blocks(space) if reserve else space.f_bavail
    note = f"{mount.fs_type} at {mount.path} has {format_size(blocks * space.f_frsize)} free."
    if space.f_bfree > space.f_bavail and mount.fs_type.startswith("ext"):
        kept = format_size((space.f_bfree - space.f_bavail) * space.f_frsize)
        note += f" {kept} of it are a reserve." if reserve else f" {kept} more are a reserve."
    return Limit(
        source="file system",
        bytes=blocks * space.f_frsize,
        inodes=_inodes(space, reserve=reserve),
        confidence=Confidence.ASSUMED if lie else Confidence.MEASURED,
        note=lie or note,
    )


def _inodes(space: os.statvfs_result, *, reserve: bool) -> int | None:
    return space.f_ffree if reserve and space.f_files > 0 else free_inodes(space)


def _quota(limit: QuotaLimit) -> Limit:
    kind = "soft " if limit.soft else ""
    parts = []
    if limit.limit_bytes is not None and limit.used_bytes is not None:
        parts.append(f"{format_size(limit.used_bytes)} of {format_size(limit.limit_bytes)}")
    if limit.limit_inodes is not None and limit.used_inodes is not None:
        parts.append(f"{limit.used_inodes} of {limit.limit_inodes} files")
    used = " and ".join(parts) or "an unknown amount"
    note = f"{limit.source}: {limit.name} uses {used}."
    return Limit(
        source=f"{kind}{limit.scope} quota",
        bytes=limit.free_bytes,
        inodes=limit.free_inodes,
        confidence=Confidence.REPORTED,
        note=f"{note} {limit.note}".strip(),
    )


def _known(known: KnownSize, seconds: float) -> Limit:
    if not known.counted:
        left, tail = None, "What counts against it cannot be told apart."
    else:
        usage = used_below(known.counted, seconds=seconds)
        left, tail = max(0, known.size - usage.bytes), _counted(usage)
    return Limit(
        source=known.name,
        bytes=left,
        inodes=None,
        confidence=Confidence.ASSUMED,
        note=f"{known.note} {tail}",
        counted=True,
    )


def _counted(usage: Usage) -> str:
    bound = "" if usage.complete else "at least "
    return f"{bound}{format_size(usage.bytes)} in {usage.inodes} files are used."


def _memory(mount: Mount) -> list[Limit]:
    """Files in memory count as memory: of the container, and of the machine."""
    if not mount.in_memory:
        return []
    limits = []
    group = memory_limit()
    if group is not None:
        note = f"{mount.path} lives in memory, which {group.source} limits."
        limits.append(("memory limit", group.free_bytes, note))
    machine = available()
    if machine is not None:
        note = f"{mount.path} lives in memory, of which so much is available."
        limits.append(("memory", machine, note))
    return [
        Limit(source=source, bytes=left, inodes=None, confidence=Confidence.MEASURED, note=note)
        for source, left, note in limits
    ]


def _ephemeral(
    place: Path, mount: Mount, environ: Mapping[str, str], seconds: float
) -> list[Limit]:
    """A pod's limit on ephemeral storage, if the user passed it in."""
    text = environ.get(EPHEMERAL_STORAGE, "").strip()
    if not text or not is_ephemeral(mount):
        return []
    try:
        size = ephemeral_limit(text)
    except UsageError as error:
        raise UsageError(f"{EPHEMERAL_STORAGE}: {error}", remedy=error.remedy) from error
    directory = place if place.is_dir() else place.parent
    usage = used_below([directory], seconds=seconds)
    note = (
        f"The pod is evicted above {format_size(size)} of ephemeral storage. Below {directory} "
        f"{_counted(usage)} Files elsewhere in the container count too."
    )
    return [
        Limit(
            source="ephemeral storage",
            bytes=max(0, size - usage.bytes),
            inodes=None,
            confidence=Confidence.ASSUMED,
            note=note,
            counted=True,
        )
    ]
