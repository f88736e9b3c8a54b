"""Trouble one of our user's list: no space left. Disks that are small, full, or made of memory."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from gradience.findings import Finding, Severity
from gradience.storage.doctor import finding_kinds as kinds
from gradience.storage.doctor.facts import Facts, Program, Room, Use
from gradience.storage.doctor.merges import take_along
from gradience.storage.doctor.questions import (
    ARROW,
    COMPILED,
    EXTENSIONS,
    LOGIN,
    MODELS,
    TEMPORARY,
    TORCH_HUB,
)
from gradience.storage.doctor.values import deciding, export, inside, listed, quoted
from gradience.system.records import Mount
from gradience.units import format_size

SEVERE_BYTES = 10**9
LOW_BYTES = 10**10
LOW_INODES = 10_000
ROOMY_BYTES = 5 * 10**10  # a disk with that much free is no small one
ENOUGH_BYTES = 2 * 10**10  # what a disk must have free to be worth moving to
TIMES_LARGER = 3
_BIG = frozenset({MODELS, ARROW, TORCH_HUB})
_FOLDERS = {"HF_HOME": "huggingface", "HF_HUB_CACHE": "hub", "TORCH_HOME": "torch"}


def variable_for(use: Use, facts: Facts) -> str | None:
    """The variable to set in order to move a use: the one that decides, else the usual one."""
    decided = deciding(use, facts)
    if decided is not None and decided[0] != "XDG_CACHE_HOME":
        return decided[0]
    names = [name for name, _ in use.variables if name != "XDG_CACHE_HOME"]
    return "HF_HOME" if "HF_HOME" in names else next(iter(names), None)


def pointed(uses: Sequence[Use], root: Path, facts: Facts) -> str:
    """The command that points libraries to another disk, the login left where it is."""
    values: dict[str, str] = {}
    for use in uses:
        name = variable_for(use, facts)
        if name is not None and use.purpose != LOGIN:
            folder = _FOLDERS.get(name, name.lower().removesuffix("_dir").removesuffix("_cache"))
            values[name] = str(root / folder)
    token = next((t.path for t in facts.tokens if t.in_use), None)
    if "HF_HOME" in values and token is not None and "HF_TOKEN_PATH" not in facts.environ:
        values["HF_TOKEN_PATH"] = str(token)
    if not values:
        return ""
    made = quoted(*(v for k, v in values.items() if k != "HF_TOKEN_PATH"))
    return f"mkdir -p {made} && {export(**values)}"


def moved(uses: Sequence[Use], root: Path, facts: Facts) -> str:
    """The same, and what lies at the old places is taken along, unless others use it there."""
    caches = facts.inventory.caches if facts.inventory else ()
    full = {cache.root for cache in caches if cache.files}
    ends: dict[str, str] = {}
    for use in uses:
        name, place = variable_for(use, facts), facts.places.get(use.path)
        there = place is not None and place.exists and str(place.resolved) in full
        if name in _FOLDERS and place is not None and there:
            below = dict(use.variables).get(name, "")
            ends[str(place.resolved)] = str(root / _FOLDERS[name] / below)
    taken = [take_along(old, new, facts) for old, new in ends.items()]
    commands = [pointed(uses, root, facts), *(command for command, _ in taken if command)]
    return "  ".join([" && ".join(commands), *(comment for _, comment in taken if comment)])


def roomier(facts: Facts, free: int, not_on: Mount | None = None) -> Path | None:
    """The directory with most space on a disk that has much more of it than `free`; home first."""
    good = [
        c
        for c in facts.candidates
        if not c.mount.in_memory
        and c.mount.path != (not_on.path if not_on else None)
        and (c.mount.free_bytes or 0) >= max(ENOUGH_BYTES, TIMES_LARGER * free)
    ]
    best = max(good, key=lambda c: c.mount.free_bytes or 0, default=None)
    return best.path if best else None


def space(facts: Facts) -> Iterator[Finding]:
    """Bytes and inodes left where libraries and programs write."""
    for room in facts.rooms:
        remedy = _more_space(room, facts)
        if room.free_bytes is not None and room.free_bytes < LOW_BYTES:
            kind = kinds.QUOTA_LOW if room.quota else kinds.SPACE_LOW
            finding = kind.found(
                f"{format_size(room.free_bytes)} can still be written in {room.path} "
                f"({room.limit}), where {_who(room, facts)}.",
                remedy=remedy,
            )
            yield _severe(finding) if room.free_bytes < SEVERE_BYTES else finding
        if room.free_inodes is not None and room.free_inodes < LOW_INODES:
            finding = kinds.INODES_LOW.found(
                f"{room.free_inodes} more files can be made in {room.path} ({room.limit}), where "
                f"{_who(room, facts)}; `df -i` shows it, `df` does not.",
                remedy=remedy,
            )
            yield _severe(finding) if room.free_inodes < LOW_INODES // 10 else finding


def _severe(finding: Finding) -> Finding:
    return Finding(
        code=finding.code,
        severity=Severity.ERROR,
        message=finding.message,
        remedy=finding.remedy,
        modules=finding.modules,
    )


def _uses(room: Room, facts: Facts) -> list[Use]:
    return [use for use in facts.uses if use.path in room.places]


def _who(room: Room, facts: Facts) -> str:
    purposes: dict[str, list[str]] = {}
    for use in _uses(room, facts):
        purposes.setdefault(use.library, []).append(use.purpose)
    named = [f"{library} keeps its {listed(what, 3)}" for library, what in purposes.items()]
    literals = facts.program.literals if facts.program else ()
    named += [
        f"the program has its {p.keyword}" for p in literals if p.value and _names(p.value, room)
    ]
    return listed(named, 3) or "the program writes"


def _names(value: str, room: Room) -> bool:
    return any(place.endswith(value.removeprefix("./").removeprefix("~")) for place in room.places)


def _more_space(room: Room, facts: Facts) -> str:
    uses = _uses(room, facts)
    here = next((facts.mount_of[p] for p in room.places if p in facts.mount_of), None)
    other = roomier(facts, room.free_bytes or 0, not_on=here)
    if uses and other is not None and pointed(uses, other, facts):
        return moved(uses, other, facts)
    if room.free_bytes is not None and room.free_bytes < LOW_BYTES:
        instead = _elsewhere(room, other, facts)
        if here is not None and not room.quota and (here.total_bytes or LOW_BYTES) < LOW_BYTES:
            return f"# a disk of {format_size(here.total_bytes or 0)} is too small: {instead}"
        if here is not None and not _holds_caches(here, facts):
            return f"# no cache lies on {here.path}: free space there, or {instead}"
        return f"gradience cache clean --min-free {LOW_BYTES // 10**9}GB"
    return "gradience cache du  # what takes the space, and what may go"


def _elsewhere(room: Room, other: Path | None, facts: Facts) -> str:
    """Who names a directory on another disk, and with what."""
    program = facts.program or Program(words=())
    told = [
        f"{p.keyword} in line {p.line} of {program.script}"
        if p.line
        else f"{p.keyword} of {p.call}"
        for p in program.literals
        if p.value and _names(p.value, room)
    ]
    told += [name for use in _uses(room, facts) if (name := variable_for(use, facts))]
    by = f" with {listed(told, 3)}" if told else ""
    return f"name a directory on another disk{by}" + (f", such as {other}" if other else "")


def _holds_caches(mount: Mount, facts: Facts) -> bool:
    """Whether a cache that was found lies there; True where none could be looked for."""
    if facts.inventory is None:
        return True
    known = {mount.path, *(m.path for m in facts.mount_of.values())}
    known |= {c.mount.path for c in facts.candidates}
    return any(
        max((p for p in known if inside(cache.root, p)), key=lambda p: len(p.parts), default=None)
        == mount.path
        for cache in facts.inventory.caches
        if cache.files
    )


def small_disk(facts: Facts) -> Iterator[Finding]:
    """A cache of large things on the smaller disk."""
    by_mount: dict[Path, list[Use]] = {}
    for use in facts.uses:
        mount = facts.mount_of.get(use.path)
        if use.purpose in _BIG and mount is not None and not mount.in_memory:
            by_mount.setdefault(mount.path, []).append(use)
    for uses in by_mount.values():
        mount = facts.mount_of[uses[0].path]
        free, total = mount.free_bytes, mount.total_bytes
        if free is None or total is None or free >= ROOMY_BYTES:
            continue
        other = roomier(facts, free, not_on=mount)
        if other is None:
            continue
        big = next(c.mount for c in facts.candidates if c.path == other)
        if (big.total_bytes or 0) < TIMES_LARGER * total:
            continue
        yield kinds.SMALL_DISK.found(
            f"{uses[0].path} lies on {mount.path} ({format_size(total)}, {format_size(free)} "
            f"free), while {big.path} has {format_size(big.free_bytes or 0)} free.",
            remedy=moved(uses, other, facts),
        )


def memory(facts: Facts) -> Iterator[Finding]:
    """Caches on a tmpfs; temporary files and compiled code there."""
    in_memory = [
        u for u in facts.uses if (m := facts.mount_of.get(u.path)) is not None and m.in_memory
    ]
    caches = [u for u in in_memory if u.purpose in _BIG]
    if caches:
        mount = facts.mount_of[caches[0].path]
        yield kinds.MEMORY_DISK.found(
            f"{listed(u.path for u in caches)} on {mount.path}, which is {mount.fs_type}: in RAM.",
            remedy=moved(caches, _on_disk(facts), facts),
        )
    small = [u for u in in_memory if u.purpose in {TEMPORARY, COMPILED, EXTENSIONS}]
    if small:
        mount = facts.mount_of[small[0].path]
        folder = _on_disk(facts) / "tmp"
        yield kinds.TEMPORARY_MEMORY.found(
            f"{listed(f'{u.purpose} ({u.library}) in {u.path}' for u in small)}: {mount.path} is "
            f"{mount.fs_type}, in RAM ({format_size(mount.free_bytes or 0)} free).",
            remedy=f"mkdir -p {quoted(folder)} && {_temporary(small, folder, facts)}",
        )


def _temporary(uses: list[Use], folder: Path, facts: Facts) -> str:
    values = {"TMPDIR": str(folder)}
    for use in uses:
        decided = deciding(use, facts)
        if decided is not None and decided[0] not in {"TMPDIR", "TEMP", "TMP"}:
            values[decided[0]] = str(folder / decided[0].lower())
    return export(**values)


def _on_disk(facts: Facts) -> Path:
    """Where there is a disk: the candidate with most space, else below home."""
    disks = [c for c in facts.candidates if not c.mount.in_memory]
    best = max(disks, key=lambda c: c.mount.free_bytes or 0, default=None)
    return best.path if best else facts.home / ".cache"


def temporary_missing(facts: Facts) -> Iterator[Finding]:
    """TMPDIR names nothing."""
    value = facts.environ.get("TMPDIR")
    used = next((u.path for u in facts.uses if u.purpose == TEMPORARY), None)
    place = facts.places.get(value) if value else None
    if value and place is not None and not place.exists and used is not None and used != value:
        yield kinds.TEMPORARY_MISSING.found(
            f"TMPDIR={value} is not there: Python uses {used}.",
            remedy=f"mkdir -p {quoted(value)}",
        )


def no_exec(facts: Facts) -> Iterator[Finding]:
    """Compiled code on a mount that forbids execution; one finding for each mount."""
    by_mount: dict[Path, list[Use]] = {}
    for use in facts.uses:
        mount = facts.mount_of.get(use.path)
        compiled = use.purpose in {COMPILED, EXTENSIONS} and variable_for(use, facts)
        if compiled and mount is not None and mount.no_exec:
            by_mount.setdefault(mount.path, []).append(use)
    good = [c for c in facts.candidates if not c.mount.no_exec and not c.mount.in_memory]
    for path, uses in by_mount.items():
        told = listed(f"{use.library} keeps its {use.purpose} in {use.path}" for use in uses)
        yield kinds.NO_EXEC.found(
            f"{told}, and {path} is mounted noexec.",
            remedy=pointed(uses, good[0].path if good else facts.home / ".cache", facts),
        )


def locks(facts: Facts) -> Iterator[Finding]:
    """A mount where two processes hold one lock."""
    for test in facts.locks:
        if test.excluded:
            continue
        uses = [u for u in facts.uses if (u.purpose in _BIG) and _is_below(u.path, test.path)]
        local = [c for c in facts.candidates if not c.mount.network and not c.mount.in_memory]
        best = max(local, key=lambda c: c.mount.free_bytes or 0, default=None)
        mend = pointed(uses, best.path, facts) if best and uses else ""
        yield kinds.LOCKS.found(
            f"{test.path}: {test.detail}",
            remedy=mend or "hf download REPO  # once, before the workers start",
        )


def _is_below(path: str, folder: Path) -> bool:
    return Path(path).is_relative_to(folder)
