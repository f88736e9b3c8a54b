"""Collect the facts: the libraries' answers first, since they say where else to look."""

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from gradience import system
from gradience.errors import GradienceError, StorageError
from gradience.storage.doctor import places as look
from gradience.storage.doctor.checkpoints import bad_files, dead_runs, set_aside
from gradience.storage.doctor.facts import (
    BadFile,
    DeadRun,
    Facts,
    HubClient,
    Interpreter,
    LockTest,
    Place,
    Program,
    Room,
    Setting,
    Token,
    Unfinished,
)
from gradience.storage.doctor.former import former, looked_at
from gradience.storage.doctor.locks import idle_lock_files, lock_test
from gradience.storage.doctor.probe import Progress, probe
from gradience.storage.doctor.profiles import read_dotenv, read_profiles
from gradience.storage.doctor.program import environment, read_program
from gradience.storage.doctor.questions import ARROW, MODELS, TORCH_HUB
from gradience.storage.doctor.values import expanded
from gradience.storage.environment.profile import former_file
from gradience.storage.environment.readers import Host
from gradience.storage.inventory.records import Inventory
from gradience.storage.inventory.take import survey
from gradience.storage.room.headroom import headroom
from gradience.storage.verify.records import Verification
from gradience.storage.verify.run import check
from gradience.system.records import Mount
from gradience.system.users import group_name, user_name

_CACHES = frozenset({MODELS, ARROW, TORCH_HUB})
_KINDS = (
    "hub", "datasets", "dataset_downloads", "dataset_extracted", "xet", "torch", "project",
)  # fmt: skip
_COUNT_SECONDS = 5.0
_DAY = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where and as whom we run; the command line fills it from the process.

    Attributes
    ----------
    environ : mapping of str to str
    home, cwd : Path
    python : Path
        The interpreter whose libraries are asked, unless the command names another.
    now : datetime
        Aware.
    umask : int
    """

    environ: Mapping[str, str]
    home: Path
    cwd: Path
    python: Path
    now: datetime
    umask: int = 0o022


def may_not_lock(mount: Mount) -> bool:
    """Locks of local disks hold; those of the rest are tried."""
    return mount.network or mount.fuse


def none_unfinished(_: Iterable[str]) -> tuple[Unfinished, ...]:
    """Nobody was asked."""
    return ()


def gather(
    machine: Machine,
    *,
    command: Sequence[str] = (),
    projects: Sequence[Path] = (),
    named_python: bool = False,
    interpreter: Interpreter | None = None,
    only: Sequence[str] = (),
    use_cache: bool = True,
    progress: Progress | None = None,
    needs_lock_test: Callable[[Mount], bool] = may_not_lock,
    find_unfinished: Callable[[Iterable[str]], Iterable[Unfinished]] = none_unfinished,
) -> Facts:
    """Every fact that the rules ask for.

    Parameters
    ----------
    machine : Machine
    command : sequence of str
        The program to look at; empty for the environment alone.
    projects : sequence of Path
        Directories with checkpoints and downloads.
    named_python : bool
        `machine.python` was asked for, and goes before the one that the command names.
    interpreter : Interpreter, optional
        One that was asked already, with this environment.
    only : sequence of str
        Ask these libraries alone.
    use_cache : bool
        Believe and keep remembered answers of libraries.
    progress : callable, optional
    needs_lock_test : callable
        The mounts where two processes try a lock.
    find_unfinished : callable
        Moves and merges that were cut off at caches; who changes caches knows their traces.

    Raises
    ------
    UsageError
        If the interpreter cannot be run.
    """
    program, environ = None, dict(machine.environ)
    python = machine.python
    if command:
        program = read_program(command, environ=environ, home=machine.home, cwd=machine.cwd)
        environ = environment(program, environ)
        python = python if named_python or not program.python else Path(program.python)
    tell = progress or _silent
    interpreter = interpreter or probe(
        python,
        environ=environ,
        home=machine.home,
        cwd=machine.cwd,
        only=only,
        imported=[each.library for each in program.imports] if program else (),
        use_cache=use_cache,
        progress=progress,
    )
    facts = Facts(
        environ=environ,
        home=machine.home,
        cwd=machine.cwd,
        umask=machine.umask,
        user=user_name(os.geteuid()),
        group=group_name(os.getegid()),
        interpreter=interpreter,
        settings=read_profiles(machine.home, environ),
        tokens=tuple(_tokens(interpreter, environ, machine.home)),
        clients=_clients(interpreter, machine, environ),
        program=program,
    )
    tell("looking at disks and rights", 0, 1)
    facts = _with_places(facts, interpreter, needs_lock_test)
    tell("looking at disks and rights", 1, 1)
    facts = _with_contents(
        facts, interpreter, machine, projects=projects, progress=progress, find=find_unfinished
    )
    return replace(facts, unasked=(*_computed(program), *facts.unasked))


def _with_contents(
    facts: Facts,
    interpreter: Interpreter,
    machine: Machine,
    *,
    projects: Sequence[Path],
    progress: Progress | None,
    find: Callable[[Iterable[str]], Iterable[Unfinished]],
) -> Facts:
    """The same with what the caches hold: those in use, and those that were."""
    environ = dict(facts.environ)
    host = Host(cwd=machine.cwd, user=user_name(os.geteuid()), system=sys.platform)
    contents = _contents(
        interpreter, facts.settings, environ, machine, host, projects=projects, progress=progress
    )
    looked = looked_at(interpreter, environ, machine.home, host)
    problems = contents.verification.problems if contents.verification else ()
    roots = _cache_roots(interpreter, contents.inventory, looked)
    return replace(
        facts,
        roots=look.roots(roots),
        looked_at=looked,
        mount_of={**look.mounts_of(roots), **facts.mount_of},
        inventory=contents.inventory,
        verification=contents.verification,
        closed=look.closed(p.path for p in problems),
        bad_files=contents.bad_files,
        set_aside=contents.set_aside,
        dead_runs=contents.dead_runs,
        idle_locks=contents.idle_locks,
        unfinished=tuple(find(map(str, roots))),
        unasked=(*contents.unasked, *facts.unasked),
    )


def _computed(program: Program | None) -> Iterable[str]:
    """Directories of a program that cannot be told without running it."""
    for place in program.computed if program else ():
        yield (
            f"where {place.keyword}={place.value} of {place.call}() in line {place.line} of "
            f"{program.script if program else ''} leads: the run decides"
        )


def _silent(_stage: str, _done: int, _total: int) -> None:
    """Tell nobody."""


def _with_places(
    facts: Facts, interpreter: Interpreter, needs_lock_test: Callable[[Mount], bool]
) -> Facts:
    """The facts, with what a look at the named paths and their disks says."""
    named = _named_places(interpreter, facts)
    found = {str(p): place for p in named if (place := look.place(p)) is not None}
    paths = [*named, *(token.path for token in facts.tokens)]
    mount_of = look.mounts_of(paths)
    rooms, unasked = _rooms(found, mount_of, facts.environ, facts.home)
    return replace(
        facts,
        places=found,
        mount_of=mount_of,
        candidates=tuple(look.candidates(_mounts(), facts.home)),
        rooms=rooms,
        parts=tuple(look.parts(_roots(interpreter, found))),
        locks=_locks(found, mount_of, interpreter, needs_lock_test),
        unasked=unasked,
    )


def _mounts() -> tuple[Mount, ...]:
    try:
        return system.mounts()
    except StorageError:
        return ()


def _named_places(interpreter: Interpreter, facts: Facts) -> list[Path]:
    """Paths of libraries, of the program, and TMPDIR as it is written."""
    named = [Path(use.path) for use in interpreter.uses]
    if facts.environ.get("TMPDIR", "").startswith("/"):
        named.append(Path(facts.environ["TMPDIR"]))
    for literal in facts.program.literals if facts.program else ():
        value = expanded(literal.value, {}, facts.home)
        if "$" not in value and "://" not in value:
            named.append(Path(os.path.normpath(facts.cwd / value)))
    return list(dict.fromkeys(named))


def _roots(interpreter: Interpreter, places: Mapping[str, Place]) -> list[Path]:
    """Existing cache directories, none inside another."""
    wanted = {places[u.path].path for u in interpreter.uses if u.purpose in _CACHES
              and u.path in places and places[u.path].kind == "directory"}  # fmt: skip
    return sorted(p for p in wanted if not any(q != p and q in p.parents for q in wanted))


def _cache_roots(
    interpreter: Interpreter, inventory: Inventory | None, looked_at: Mapping[str, str]
) -> list[Path]:
    """Every cache that a mend may bring into another, or another into."""
    named = [use.path for use in interpreter.uses if use.purpose == MODELS]
    named += looked_at.values()
    named += [cache.root for cache in inventory.caches] if inventory else []
    return [Path(name) for name in dict.fromkeys(named)]


def _tokens(interpreter: Interpreter, environ: Mapping[str, str], home: Path) -> Iterable[Token]:
    used = [Path(u.path) for u in interpreter.uses if u.purpose == "login"]
    others = [home / ".cache" / "huggingface" / "token"]
    if environ.get("HF_HOME", "").startswith("/"):
        others.append(Path(environ["HF_HOME"]) / "token")
    return look.tokens({p: p in used for p in [*used, *others]})


def _rooms(
    places: Mapping[str, Place],
    mounts: Mapping[str, Mount],
    environ: Mapping[str, str],
    home: Path,
) -> tuple[tuple[Room, ...], tuple[str, ...]]:
    """One room for each mount and device that something writes to."""
    groups: dict[tuple[str, int], list[str]] = {}
    for name, place in places.items():
        if place.writable and name in mounts:
            key = (str(mounts[name].path), place.existing.stat().st_dev)
            groups.setdefault(key, []).append(name)
    rooms, unasked = [], []
    for names in groups.values():
        try:
            answer = headroom(names[0], environ=environ, home=home, count_seconds=_COUNT_SECONDS)
        except GradienceError as error:
            unasked.append(str(error))
            continue
        limit = answer.binding
        source = limit.source if limit else "unknown"
        rooms.append(
            Room(
                path=answer.mount.path if source == "file system" else answer.path,
                places=tuple(names),
                free_bytes=answer.bytes,
                free_inodes=answer.inodes,
                limit=f"{answer.mount.fs_type}, limited by the {source}",
                quota="quota" in source,
            )
        )
        unasked += answer.unasked
    return tuple(rooms), tuple(unasked)


def _locks(
    places: Mapping[str, Place],
    mounts: Mapping[str, Mount],
    interpreter: Interpreter,
    wanted: Callable[[Mount], bool],
) -> tuple[LockTest, ...]:
    """A lock test for each mount that could fail it and holds a cache."""
    tested: dict[Path, LockTest] = {}
    for use in interpreter.uses:
        mount, place = mounts.get(use.path), places.get(use.path)
        if use.purpose not in _CACHES or mount is None or place is None or mount.path in tested:
            continue
        if wanted(mount) and place.writable and place.existing.is_dir():
            result = lock_test(place.existing)
            if result is not None:
                tested[mount.path] = result
    return tuple(tested.values())


def _clients(
    interpreter: Interpreter, machine: Machine, environ: Mapping[str, str]
) -> tuple[HubClient, ...]:
    found = {c.site: c for c in look.hub_clients(machine.home, machine.cwd, environ)}
    own = interpreter.installed("huggingface_hub")
    if own is not None and all(c.version != own for c in found.values()):
        found[interpreter.executable] = HubClient(version=own, site=interpreter.executable)
    return tuple(found.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Contents:
    """What lies in the caches."""

    inventory: Inventory | None = None
    verification: Verification | None = None
    bad_files: tuple[BadFile, ...] = ()
    set_aside: tuple[Path, ...] = ()
    dead_runs: tuple[DeadRun, ...] = ()
    idle_locks: Mapping[str, int] = field(default_factory=dict)
    unasked: tuple[str, ...] = ()


def _contents(
    interpreter: Interpreter,
    settings: Sequence[Setting],
    environ: Mapping[str, str],
    machine: Machine,
    host: Host,
    *,
    projects: Sequence[Path],
    progress: Progress | None,
) -> _Contents:
    """The caches in use, those that variables and profiles led to before, and the projects."""
    removed = read_dotenv(former_file(environ, machine.home))
    once = [(s.name, s.value) for s in (*settings, *removed)]
    once += (dict(machine.environ) | dict(environ)).items()
    also = former(interpreter, once, environ, machine.home, host)
    try:
        found = survey(
            environ=environ,
            home=machine.home,
            now=machine.now,
            host=host,
            projects=projects,
            also=also,
            kinds=_KINDS,
            progress=progress,
        )
        inventory = found.inventory
        refused = [
            (one.path, one.reason)
            for cache in inventory.caches
            if cache.kind in ("hub", "project")
            for one in cache.unreadable
        ]
        checked = check(found.looks, refused, progress=progress)
    except (GradienceError, OSError) as error:
        return _Contents(unasked=(f"the caches could not be listed: {error}",))
    yesterday = machine.now.timestamp() - _DAY
    locks = {
        c.root: idle_lock_files(Path(c.root), older_than=yesterday)
        for c in inventory.caches
        if c.kind == "hub"
    }
    return _Contents(
        inventory=inventory,
        verification=checked,
        bad_files=bad_files(inventory),
        set_aside=set_aside(inventory),
        dead_runs=dead_runs(
            (look.tree for look in found.looks if look.kind == "project"),
            now=machine.now.timestamp(),
        ),
        idle_locks=locks,
    )
