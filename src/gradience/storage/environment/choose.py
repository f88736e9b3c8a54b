"""The layout for one machine: what was detected, what was asked for, what would be left behind."""

import os
from dataclasses import replace
from os.path import normpath
from pathlib import Path

from gradience.errors import UsageError
from gradience.paths import as_path
from gradience.storage.environment.exports.export import posix_quoted
from gradience.storage.environment.layout import Layout, layout
from gradience.storage.environment.left_behind import left_behind
from gradience.storage.environment.machine import Machine
from gradience.storage.environment.platforms.detection import (
    SMALLEST_VOLUME,
    Detected,
    detect,
    find_volume,
    holder,
    local_directory,
)
from gradience.storage.environment.platforms.listed import PLATFORMS
from gradience.storage.environment.platforms.platform import Platform
from gradience.storage.environment.readers import resolve
from gradience.storage.environment.records import Environment, LeftBehind
from gradience.storage.environment.transfer import Choice, transfer
from gradience.units import format_size


def environment(
    machine: Machine,
    *,
    platform: str | None = None,
    root: Path | None = None,
    choice: Choice = "auto",
    elsewhere: bool = False,
) -> Environment:
    """Decide what goes where.

    Parameters
    ----------
    machine : Machine
    platform : str, optional
        Key of `PLATFORMS`; detected where left out.
    root : Path, optional
        The directory to start from, in place of the platform's own.
    choice : str
        `plain`, `fast` or `auto`.
    elsewhere : bool
        The text is for an image or a pod: no disk of this machine counts.

    Raises
    ------
    UsageError
        If the platform is unknown or has no fixed root and none was given, or a path cannot be
        meant.
    """
    found, here = _detected(machine, platform, root, elsewhere=elsewhere)
    own = PLATFORMS[found.name]
    switches = transfer(choice, machine.client)
    token, lost = _token(machine)
    if not here and own.home:
        token = Path(own.home, ".cache", "huggingface", "token")
    made = layout(
        own,
        found.root,
        local=found.local,
        token=token,
        transfer=switches,
        # A volume that is mounted empty has no directory for TMPDIR, and mktemp then fails.
        temporary=Path("/tmp") if own.style == "docker" and not here else None,
        comments=(found.reason, *found.notes),
    )
    notes = [f"First: {switches.hint}"] if switches.hint else []
    notes += [*lost, *_contradictions(machine, made)]
    notes += _poor_root(machine, found.root) if here and root is not None else []
    gone = _left_behind(machine, made) if here else ()
    return Environment(
        layout=made, reason=found.reason, here=here, left_behind=gone, notes=tuple(notes)
    )


def _poor_root(machine: Machine, root: Path) -> list[str]:
    """What speaks against a root that was asked for; one that was detected has been weighed."""
    mount = holder(root, machine.mounts)
    if mount is None:
        return []
    notes = []
    if mount.in_memory:
        notes.append(f"{root} lies in memory ({mount.fs_type}): it is gone at the next start.")
    if mount.read_only:
        notes.append(f"{root} cannot be written: {mount.path} is mounted read-only.")
    if mount.free_bytes is not None and mount.free_bytes < SMALLEST_VOLUME:
        notes.append(f"{root} has room for {format_size(mount.free_bytes)} only.")
    return notes


def absolute(root: str | os.PathLike[str], home: Path, cwd: Path) -> Path:
    """A root that a user gave: `~` expanded, relative to the working directory, `..` taken out.

    Raises
    ------
    UsageError
        If it is empty, which is what an unset variable in a shell leaves.
    """
    if not os.fspath(root).strip():
        raise UsageError(
            "the root directory is an empty text", remedy="Is the variable that names it set?"
        )
    return Path(normpath(cwd / as_path(root, home)))


def _detected(
    machine: Machine, name: str | None, root: Path | None, *, elsewhere: bool
) -> tuple[Detected, bool]:
    """The choice, and whether its root is a place of this machine."""
    if name is None and not elsewhere:
        found = detect(machine.hints, machine.mounts, home=machine.home, marks=machine.marks)
        return (found, True) if root is None else (_moved(machine, found, root), True)
    platform = PLATFORMS[name or "docker"]
    if elsewhere:
        return _foreign(machine, platform, root), False
    volume, why = find_volume(platform, machine.hints, machine.mounts)
    signal = platform.signal(machine.hints, machine.marks, machine.mounts)
    if volume is not None and volume[0] != volume[2].path and not signal:
        # A place that need not be a mount is one of this machine only where the platform shows.
        volume, why = None, "nothing tells of it"
    if root is None and volume is None and platform.style != "local":
        reason = f"{platform.title}, as asked, though here {why}."
        return replace(_foreign(machine, platform, root), reason=reason), False
    path = root or (volume[0] if volume else machine.home / ".cache" / "gradience")
    found = Detected(
        name=platform.name,
        root=path,
        local=path,
        reason=f"{platform.title}, as asked, at {path}.",
    )
    return _moved(machine, found, path, reason=found.reason), True


def _moved(machine: Machine, found: Detected, root: Path, *, reason: str = "") -> Detected:
    """The same machine with another root."""
    platform = PLATFORMS[found.name]
    local, note = local_directory(platform, root, machine.hints, machine.mounts, machine.home)
    return Detected(
        name=found.name,
        root=root,
        local=local,
        reason=reason or f"{platform.title}, at {root}, as asked.",
        notes=(note,) if note else (),
    )


def _foreign(machine: Machine, platform: Platform, root: Path | None) -> Detected:
    """A layout for a machine that is not this one."""
    home = Path(platform.home) if platform.home else machine.home
    path = root or platform.default_root(machine.hints, home)
    if path is None:
        raise UsageError(
            f"{platform.title}: no disk has a fixed place there",
            remedy="Say where it is mounted: --root DIR.",
        )
    own = home / ".cache" / "gradience"
    return Detected(
        name=platform.name,
        root=path,
        local=own if platform.style == "cloud" else path,
        reason=f"{platform.title}, at {path}.",
        notes=(platform.keeps,),
    )


def _token(machine: Machine) -> tuple[Path, list[str]]:
    """Where the login token is or would be; the usual place where that follows `cwd` by mistake."""
    found = resolve(machine.environ, machine.home, host=machine.host)["hub_token"]
    if not found.traps:
        return found.path, []
    usual = machine.home / ".cache" / "huggingface" / "token"
    if not found.path.is_file():
        return usual, []
    return usual, [
        f"A login token lies at {found.path}, by mistake ({found.decided_by}). Move it:"
        f" mkdir -p -- {posix_quoted(str(usual.parent))} && "
        f"mv -- {posix_quoted(str(found.path))} {posix_quoted(str(usual))}"
    ]


def _left_behind(machine: Machine, made: Layout) -> tuple[LeftBehind, ...]:
    before = resolve(machine.environ, machine.home, host=machine.host)
    after = resolve({**machine.environ, **made.values}, machine.home, host=machine.host)
    return left_behind(before, after)


def _contradictions(machine: Machine, made: Layout) -> list[str]:
    """Variables of this environment that the layout does not set and that work against it."""
    said = []
    if machine.environ.get("HF_HUB_DISABLE_XET") == "1" and "HF_HUB_DISABLE_XET" not in made.values:
        said.append(
            "HF_HUB_DISABLE_XET=1 is set here: the hub then refuses files over 50 GB and stores "
            "shared files twice. Unset it, or choose --transfer plain."
        )
    followers = {
        "HF_MODULES_CACHE": "HF_HOME",
        "HF_ASSETS_CACHE": "HF_HOME",
        "HUGGINGFACE_ASSETS_CACHE": "HF_HOME",
        "HF_EVALUATE_CACHE": "HF_HOME",
        "HF_DATASETS_DOWNLOADED_DATASETS_PATH": "HF_DATASETS_CACHE",
        "HF_DATASETS_EXTRACTED_DATASETS_PATH": "HF_DATASETS_CACHE",
    }
    for name, leader in followers.items():
        if name in machine.environ:
            said.append(
                f"{name}={machine.environ[name]} is set here and stays: it does not follow {leader}"
            )
    return said
