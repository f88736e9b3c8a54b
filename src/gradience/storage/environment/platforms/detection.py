"""Which platform this is, and which of its disks to use: hints propose, measured mounts decide.

`RUNPOD_POD_ID` is set in images that no longer run on RunPod, and `/.dockerenv` is there in every
container. So a platform's layout is taken only where its disk is mounted, writable, not in memory
and large enough for one model; otherwise the next hint is tried, and the local layout is the last.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gradience.storage.environment.platforms.listed import PLATFORMS
from gradience.storage.environment.platforms.platform import Candidate, Platform
from gradience.system.records import Mount
from gradience.units import format_size

SMALLEST_VOLUME = 5 * 10**9  # bytes; below that no model worth a cache fits
_CLUSTER = 100 * 10**12  # bytes; a network mount that shows more shows the cluster, not a limit
_ROOMIER = 4  # times the free space of the home disk, for another disk to be worth a word
_SYSTEM = (
    "/boot",
    "/dev",
    "/etc",
    "/proc",
    "/run",
    "/snap",
    "/sys",
    "/usr",
    "/var",
    "/nix",
    "/mnt/c",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Detected:
    """The machine, as hints and mounts tell it.

    Attributes
    ----------
    name : str
        Key of `PLATFORMS`.
    root : Path
        The directory that the layout starts from.
    local : Path
        Directory on a disk of the machine itself, for compile caches and temporary files.
    reason : str
        One sentence: which hint, which mount, how large.
    notes : tuple of str
        What survives a stop, and what could not be had.
    """

    name: str
    root: Path
    local: Path
    reason: str
    notes: tuple[str, ...] = ()


def detect(
    environ: Mapping[str, str],
    mounts: Sequence[Mount],
    *,
    home: Path | None = None,
    marks: Collection[str] = (),
) -> Detected:
    """Choose platform and disk from hints and measured mounts.

    Parameters
    ----------
    environ : mapping of str to str
    mounts : sequence of Mount
        From `gradience.system.mounts()`.
    home : Path, optional
        `$HOME` where left out.
    marks : collection of str
        Those of `all_marks()` that exist.
    """
    home = home or Path(environ.get("HOME") or "/root")
    misses: list[str] = []
    notes: list[str] = []
    platform, root, reason = PLATFORMS["local"], _own(home), ""
    for name in PLATFORMS:
        signal = PLATFORMS[name].signal(environ, marks, mounts)
        if not signal:
            continue
        found, why = find_volume(PLATFORMS[name], environ, mounts)
        if found is not None or PLATFORMS[name].style == "local":
            platform, root = PLATFORMS[name], found[0] if found is not None else root
            where = _described(*found) if found is not None else _home_described(mounts, home)
            reason = f"{platform.title} ({signal}): {where}."
            break
        misses.append(f"{signal}, but {why}")
        notes.append(f"{PLATFORMS[name].title}: {PLATFORMS[name].keeps}")
    if not reason:
        said = "; ".join(misses) or "No sign of a cloud, a cluster or a container"
        reason = f"{said}: the local layout, {_home_described(mounts, home)}."
        notes += _roomier(mounts, home)
    elif platform.keeps:
        notes = [platform.keeps]
    directory, note = local_directory(platform, root, environ, mounts, home)
    return Detected(
        name=platform.name,
        root=root,
        local=directory,
        reason=reason,
        notes=(*notes, note) if note else tuple(notes),
    )


def all_marks() -> frozenset[str]:
    """Every path whose existence is a hint."""
    return frozenset(mark for platform in PLATFORMS.values() for mark in platform.marks)


def all_variables() -> frozenset[str]:
    """Every variable that is a hint, or names a disk."""
    names = {name for platform in PLATFORMS.values() for name in platform.variables}
    paths = {c.path for p in PLATFORMS.values() for c in p.roots}
    return frozenset(names | {path[1:] for path in paths if path.startswith("$")})


def holder(path: Path, mounts: Sequence[Mount]) -> Mount | None:
    """The mount that holds a path, by the longest name; None without any."""
    above = [m for m in mounts if path == m.path or m.path in path.parents]
    return max(above, key=lambda m: len(m.path.parts), default=None)


def local_directory(
    platform: Platform,
    root: Path,
    environ: Mapping[str, str],
    mounts: Sequence[Mount],
    home: Path,
) -> tuple[Path, str]:
    """Where compile caches go: a disk of this machine that keeps files and runs code from them.

    Returns
    -------
    (Path, str)
        The directory, and a note where it is not what it should be.
    """
    user = environ.get("USER") or "user"
    on_root = root / "compile_cache" if platform.style == "cloud" else root
    choices = [(Path(p), Path(p) / "gradience") for p in _named(platform.local, environ)]
    # On one disk with the home directory, they stay at home; a volume of its own outlives a stop.
    if platform.style != "cloud" or holder(root, mounts) != holder(home, mounts):
        choices.append((root, on_root))
    choices += [(home, _own(home)), (Path("/tmp"), Path(f"/tmp/gradience-{user}"))]
    for place, directory in choices:
        mount = holder(place, mounts)
        if mount is not None and not _unfit_for_code(mount):
            return directory, ""
    return on_root, (
        f"No disk of this machine keeps files and lets code run from them: compile caches go to "
        f"{on_root} too."
    )


def find_volume(
    platform: Platform, environ: Mapping[str, str], mounts: Sequence[Mount]
) -> tuple[tuple[Path, str, Mount] | None, str]:
    """The platform's disk with its kind and its mount, or None and the reason."""
    reasons = []
    for candidate in platform.roots:
        for path, mount in _places(candidate, environ, mounts):
            why = _unfit(path, mount, candidate)
            if not why and mount is not None:
                return (path, candidate.kind, mount), ""
            reasons.append(why)
    volumes = [m for m in mounts if _is_volume(m)] if platform.any_volume else []
    if volumes:
        best = max(volumes, key=lambda m: (m.free_bytes or 0, str(m.path)))
        return (best.path, "the roomiest mounted volume", best), ""
    if platform.any_volume and not reasons:
        reasons.append("no volume is mounted")
    return None, "; ".join(dict.fromkeys(reasons)) or "none of its disks is mounted"


def _places(
    candidate: Candidate, environ: Mapping[str, str], mounts: Sequence[Mount]
) -> Iterator[tuple[Path, Mount | None]]:
    """The paths that a candidate names, and what is mounted there."""
    if candidate.path.endswith("/*"):
        parent = Path(candidate.path[:-2])
        below = [m for m in mounts if m.path.parent == parent]
        yield from (
            (m.path, m) for m in sorted(below, key=lambda m: m.free_bytes or 0, reverse=True)
        )
        return
    for path in _named((candidate.path,), environ):
        yield Path(path), holder(Path(path), mounts)


def _named(paths: Sequence[str], environ: Mapping[str, str]) -> Iterator[str]:
    """Absolute paths as they are, `$NAME` as its value where that is an absolute path."""
    for path in paths:
        value = environ.get(path[1:], "") if path.startswith("$") else path
        if value.startswith("/"):
            yield value


def _unfit(path: Path, mount: Mount | None, candidate: Candidate) -> str:
    """Why a path is not the disk that was hoped for; empty where it is."""
    at = mount is not None and (
        mount.path == path or (candidate.path[0] == "$" and mount.path != Path("/"))
    )
    if mount is None or (candidate.mounted and not at):
        return f"nothing is mounted at {path}"
    if mount.read_only:
        return f"{path} is mounted read-only"
    if mount.in_memory:
        return f"{path} lies in memory"
    if mount.total_bytes is not None and mount.total_bytes < SMALLEST_VOLUME:
        return f"{path} holds {format_size(mount.total_bytes)} in all"
    return ""


def _is_volume(mount: Mount) -> bool:
    """Whether something is mounted there for data, rather than by the system."""
    path = str(mount.path)
    system = path == "/" or any(path == s or path.startswith(f"{s}/") for s in _SYSTEM)
    small = mount.total_bytes is None or mount.total_bytes < SMALLEST_VOLUME
    return not (system or small or mount.read_only or mount.in_memory)


def _unfit_for_code(mount: Mount) -> bool:
    return mount.network or mount.in_memory or mount.read_only or mount.no_exec


def _described(path: Path, kind: str, mount: Mount) -> str:
    where = "on the network" if mount.network else "on this machine"
    size = ""
    if mount.free_bytes is not None and mount.total_bytes is not None:
        free, total = format_size(mount.free_bytes), format_size(mount.total_bytes)
        size = f", {free} free of {total}"
        if mount.network and mount.total_bytes > _CLUSTER:
            size += " (the cluster's size, not your limit)"
    return f"{kind} at {path}, {mount.fs_type} {where}{size}"


def _home_described(mounts: Sequence[Mount], home: Path) -> str:
    mount = holder(home, mounts)
    if mount is None:
        return f"below {home}"
    size = f", {format_size(mount.free_bytes)} free" if mount.free_bytes is not None else ""
    where = "on the network" if mount.network else "on this machine"
    return f"below {home} ({mount.fs_type} {where}{size})"


def _roomier(mounts: Sequence[Mount], home: Path) -> list[str]:
    """A word on a disk with far more room than the home directory's."""
    here = holder(home, mounts)
    free = here.free_bytes if here is not None else None
    volumes = [m for m in mounts if _is_volume(m) and m.free_bytes is not None and m != here]
    best = max(volumes, key=lambda m: (m.free_bytes or 0, str(m.path)), default=None)
    if best is None or free is None or (best.free_bytes or 0) < _ROOMIER * free:
        return []
    return [
        f"{best.path} has {format_size(best.free_bytes or 0)} free: `gradience env --root "
        f"{best.path}/DIR` would use it."
    ]


def _own(home: Path) -> Path:
    return home / ".cache" / "gradience"
