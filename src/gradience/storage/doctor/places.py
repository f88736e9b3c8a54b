"""Directories, owners, mounts, logins and other Pythons: what a look at the disk says."""

import contextlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from gradience import paths, system
from gradience.errors import StorageError
from gradience.storage.doctor.facts import Candidate, ForeignPart, HubClient, Place, Token
from gradience.system.records import Mount
from gradience.system.users import group_name, user_name

_PARTS = 4000  # directories of one cache that are looked at
_DEPTH = 3  # hub/models--org--name/blobs
_SMALLEST_DISK = 10**10
_NOT_FOR_CACHES = ("/boot", "/etc", "/proc", "/sys", "/dev", "/run", "/snap", "/usr", "/nix")
_HUB_INFO = "huggingface_hub-*.dist-info"
_SITES = (
    "lib/python3*/site-packages",
    "lib/python3*/dist-packages",
    "lib/python3/dist-packages",
)


def place(path: Path) -> Place | None:
    """A place as this process finds it; None where not even a parent can be looked at."""
    link = next((p for p in (path, *path.parents) if _leads_nowhere(p)), None)
    seen = _nearest(link.parent if link else path)
    if seen is None:
        return None
    existing, status = seen
    is_dir = stat.S_ISDIR(status.st_mode)
    there = existing == path
    kind = "broken link" if link else "missing" if not there else "directory" if is_dir else "file"
    effective = os.access in os.supports_effective_ids
    rights = os.W_OK | (os.X_OK if is_dir else 0)
    # What is no directory, or may not be entered, holds nothing new.
    may = (is_dir or there) and os.access(existing, rights, effective_ids=effective)
    return Place(
        path=path,
        existing=existing,
        resolved=Path(os.path.realpath(existing)),
        kind=kind,  # type: ignore[arg-type] # one of the four words above
        writable=link is None and may,
        owner=user_name(status.st_uid),
        group=group_name(status.st_gid),
        mode=stat.S_IMODE(status.st_mode),
        mine=status.st_uid == os.geteuid(),
        is_dir=is_dir,
        shut=is_dir and not os.access(existing, os.X_OK, effective_ids=effective),
        link=link,
    )


def _leads_nowhere(path: Path) -> bool:
    """Whether this is a link to nothing, or to itself: no directory can be made below it."""
    with contextlib.suppress(OSError):
        if not path.is_symlink():
            return False
        try:
            path.stat()
        except PermissionError:
            return False
        except OSError:
            return True
    return False


def _nearest(path: Path) -> tuple[Path, os.stat_result] | None:
    """The path or its nearest parent that can be looked at."""
    for place in (path, *path.parents):
        with contextlib.suppress(OSError):
            return place, place.stat()
    return None


def mount_of(path: Path) -> Mount | None:
    """The mount of a path, where the system tells."""
    with contextlib.suppress(StorageError):
        return system.mount_of(path)
    return None


def mounts_of(paths: Iterable[Path]) -> dict[str, Mount]:
    """The mount of each path, where the system tells."""
    return {str(path): mount for path in paths if (mount := mount_of(path)) is not None}


def roots(caches: Iterable[Path]) -> dict[str, Place]:
    """The directories of these caches, and those above: a link can be put there in their place."""
    wanted = dict.fromkeys(path for cache in caches for path in (cache, cache.parent))
    return {str(path): found for path in wanted if (found := place(path)) is not None}


def closed(files: Iterable[str]) -> dict[str, str]:
    """The directories of these files in which this user may delete nothing, with their owners."""
    folders = dict.fromkeys(Path(file).parent for file in files)
    found = [place(folder) for folder in folders]
    return {str(p.path): p.owner for p in found if p is not None and not p.writable}


def parts(caches: Iterable[Path]) -> Iterator[ForeignPart]:
    """Directories near the top of the caches that this user cannot write or that differ."""
    effective = os.access in os.supports_effective_ids
    for cache in caches:
        for directory in _directories(cache):
            try:
                status = directory.stat()
            except OSError:
                continue
            yield ForeignPart(
                path=directory,
                cache=cache,
                owner=user_name(status.st_uid),
                group=group_name(status.st_gid),
                mode=stat.S_IMODE(status.st_mode),
                is_dir=True,
                writable=os.access(directory, os.W_OK | os.X_OK, effective_ids=effective),
            )


def _directories(cache: Path) -> Iterator[Path]:
    """The cache and its directories down to three levels, at most some thousands.

    Not what lies in a directory of our own: that is closed to all but its user on purpose.
    """
    level, seen = [cache], 0
    for _ in range(_DEPTH + 1):
        below: list[Path] = []
        for directory in level:
            seen += 1
            if seen > _PARTS:
                return
            yield directory
            if directory.name == paths.SET_ASIDE:
                continue
            with contextlib.suppress(OSError), os.scandir(directory) as entries:
                below += [Path(e.path) for e in entries if e.is_dir(follow_symlinks=False)]
        level = below


def candidates(mounts: Iterable[Mount], home: Path) -> Iterator[Candidate]:
    """Directories of disks where this user may put a cache."""
    own = mount_of(home)
    for mount in mounts:
        if mount.read_only or (mount.total_bytes or 0) < _SMALLEST_DISK:
            continue
        if str(mount.path).startswith(_NOT_FOR_CACHES):
            continue
        folder = mount.path
        if own is not None and mount.path == own.path:
            folder = home / ".cache"
        elif mount.path == Path("/"):
            folder = Path("/var/cache")
        found = place(folder)
        if found is not None and found.writable and found.existing.is_dir():
            yield Candidate(path=folder, mount=mount)


def tokens(paths: Mapping[Path, bool]) -> Iterator[Token]:
    """Login files that are there: where, whose, and who may read; never what is in them.

    Parameters
    ----------
    paths : mapping of Path to bool
        Each with whether a library would read it.
    """
    for path, in_use in paths.items():
        with contextlib.suppress(OSError):
            status = path.stat()
            if stat.S_ISREG(status.st_mode) and status.st_size:
                mode = stat.S_IMODE(status.st_mode)
                owner = user_name(status.st_uid)
                shut = _shut(path)
                yield Token(
                    path=path, mode=mode & 0o700 if shut else mode, owner=owner, in_use=in_use
                )


def _shut(path: Path) -> bool:
    """Whether a directory above keeps all others out, whatever the mode of the file."""
    return any(not parent.stat().st_mode & 0o011 for parent in path.parents)


def hub_clients(home: Path, cwd: Path, environ: Mapping[str, str]) -> tuple[HubClient, ...]:
    """Installations of huggingface_hub at the usual places; the file system is not searched."""
    roots = [cwd, *cwd.parents[:2], home, home / ".local", Path("/usr"), Path("/usr/local")]
    roots += [Path(v) for n in ("VIRTUAL_ENV", "CONDA_PREFIX") if (v := environ.get(n))]
    patterns = (
        "", ".venv", "venv", "env", "*/.venv", "*/venv", "*/env", ".virtualenvs/*", "miniconda3",
        "miniconda3/envs/*", "anaconda3", "anaconda3/envs/*", "miniforge3/envs/*",
        ".pyenv/versions/*", ".local/share/pipx/venvs/*", ".local/share/uv/tools/*",
    )  # fmt: skip
    prefixes = [p for r in roots for q in patterns for p in (_matches(r, q) if q else [r])]
    opt = Path("/opt")
    prefixes += [opt / "conda", *_matches(opt, "*"), *_matches(opt, "conda/envs/*")]
    found: dict[str, HubClient] = {}
    for prefix in dict.fromkeys(prefixes):
        for site in _SITES:
            for info in _matches(prefix, f"{site}/{_HUB_INFO}"):
                folder = os.path.realpath(info.parent)
                version = re.sub(r"^huggingface_hub-|\.dist-info$", "", info.name)
                found[folder] = HubClient(version=version, site=folder)
    return tuple(found.values())


def _matches(directory: Path, pattern: str) -> list[Path]:
    """What matches below a directory; nothing where this user may not look."""
    try:
        return list(directory.glob(pattern))
    except OSError:
        return []
