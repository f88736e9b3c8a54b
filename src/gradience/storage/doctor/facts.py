"""What is true on this machine, as plain records: the doctor's rules see nothing else.

Readers fill these (the probe, the shell profiles, directories, mounts, the inventory); rules turn
them into findings. A fact that could not be had is an empty tuple or None, and `unasked` says why.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from gradience.storage.inventory.records import Inventory
from gradience.storage.verify.records import Verification
from gradience.system.records import Mount

FORMER = "was in use"
"""What chose a cache of the inventory that nothing leads to any more."""
_SHARED = 0o2020  # setgid, and the group may write


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """One place where one library keeps bytes.

    Attributes
    ----------
    library : str
        The library's name as users write it.
    purpose : str
        What lies there: `models and files`, `Arrow data`, `login`.
    path : str
        Absolute; a relative answer is taken from the working directory, as the library does.
    answer : str
        What the library itself said, to the letter.
    variables : tuple of (str, str)
        Variables that decide, strongest first, each with what the library appends to its value.
    asked : bool
        The library was asked; False where it has no way to say and its rule was followed.
    """

    library: str
    purpose: str
    path: str
    answer: str
    variables: tuple[tuple[str, str], ...] = ()
    asked: bool = True


class Library(msgspec.Struct, frozen=True, kw_only=True):
    """One installed library: its version and its places, or why it could not say them."""

    name: str
    version: str
    uses: tuple[Use, ...] = ()
    problem: str = ""
    remembered: bool = False


class Interpreter(msgspec.Struct, frozen=True, kw_only=True):
    """The Python whose libraries were asked.

    Attributes
    ----------
    executable, version : str
    libraries : tuple of Library
        Those that were asked.
    distributions : mapping of str to str
        Versions of all that are installed among those that could be asked.
    """

    executable: str
    version: str
    libraries: tuple[Library, ...] = ()
    distributions: dict[str, str] = {}

    def has(self, distribution: str) -> bool:
        """A distribution that we know how to ask is installed."""
        return distribution in self.distributions

    def installed(self, name: str) -> str | None:
        """The version of a library, or None where it is not installed."""
        return self.distributions.get(name)

    @property
    def uses(self) -> tuple[Use, ...]:
        """Every place of every library."""
        return tuple(use for library in self.libraries for use in library.uses)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """`NAME=value` written in a file that a shell or a program reads at its start."""

    name: str
    value: str
    file: str
    line: int
    exported: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A directory that a library writes to, or its nearest parent that exists.

    Attributes
    ----------
    path : Path
        What the library said.
    existing : Path
        The path itself, or the nearest parent that exists.
    resolved : Path
        `existing` without links on the way: what an inventory calls it.
    kind : str
        `directory`, `file`, `missing`, `broken link`.
    writable : bool
        This process may create a file in `existing`.
    owner, group : str
        Names, or numbers where they have no name.
    mode : int
        Permission bits of `existing`.
    mine : bool
        `existing` belongs to the user of this process.
    is_dir : bool
        `existing` is a directory.
    shut : bool
        `existing` is a directory that this process may not enter.
    link : Path, optional
        The link to nothing on the way, of a `broken link`.
    """

    path: Path
    existing: Path
    resolved: Path
    kind: Literal["directory", "file", "missing", "broken link"]
    writable: bool
    owner: str
    group: str
    mode: int
    mine: bool = True
    is_dir: bool = True
    shut: bool = False
    link: Path | None = None

    @property
    def exists(self) -> bool:
        """The library's own directory is there."""
        return self.kind in {"directory", "file"}

    @property
    def shared(self) -> bool:
        """The directory itself says that a group shares it: group-writable and setgid."""
        return self.exists and self.mode & _SHARED == _SHARED

    @property
    def of_team(self) -> bool:
        """Whether others use what exists by design: a group has a right, and is no user's own."""
        return bool(self.mode & _SHARED) and self.group not in (self.owner, "root")


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """How much can still be written at a place.

    Attributes
    ----------
    path : Path
        The place, or its nearest parent that exists.
    places : tuple of str
        The paths of libraries and programs that lie there.
    free_bytes, free_inodes : int, optional
        None where nothing could tell.
    limit : str
        What sets the limit in words: `the disk /dev/sda1`, `user quota`.
    quota : bool
        The limit is a quota, which `df` does not show.
    """

    path: Path
    places: tuple[str, ...]
    free_bytes: int | None
    free_inodes: int | None
    limit: str
    quota: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A directory on a disk where this user may put a cache."""

    path: Path
    mount: Mount


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignPart:
    """Something inside a cache that its user cannot write, or its group cannot share."""

    path: Path
    cache: Path
    owner: str
    group: str
    mode: int
    is_dir: bool
    writable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LockTest:
    """Two processes tried to lock one file of a directory at the same time."""

    path: Path
    excluded: bool
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A login file: never its content, only where it is and who may read it."""

    path: Path
    mode: int
    owner: str
    in_use: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class HubClient:
    """A huggingface_hub installed somewhere on this machine."""

    version: str
    site: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BadFile:
    """A file of a checkpoint that a cheap look shows to be cut off."""

    path: Path
    checkpoint: Path
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """A move or a merge of caches that was cut off, in words, and the command that ends it.

    Attributes
    ----------
    places : tuple of str
        From where and to where.
    """

    words: str
    command: str
    places: tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadRun:
    """A run that is over, and what still takes room for it: reserves, unfinished saves."""

    place: Path
    held: tuple[Path, ...]
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """An environment variable that a program sets for itself."""

    name: str
    value: str | None
    line: int
    how: str
    order: int = 0
    conditional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """The first line on which a program imports a library."""

    library: str
    line: int
    order: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PathLiteral:
    """A directory written in the program: `cache_dir=`, `output_dir=`..."""

    keyword: str
    value: str
    call: str
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What a command line and the script that it runs say of themselves, without running them.

    Attributes
    ----------
    words : tuple of str
        The command as given.
    dotenv : tuple of Setting
        What the file holds that the program loads with `load_dotenv`.
    script : Path, optional
        None where the command runs no Python file that could be found.
    prefix : mapping
        Variables set in front of the command (`HF_HOME=/x python ...`, `env HF_HOME=/x ...`).
    flags : tuple of str
        Options of the interpreter.
    computed : tuple of PathLiteral
        Directories that only the run decides: `value` is the expression.
    notes : tuple of str
        What could not be read, and why.
    """

    words: tuple[str, ...]
    script: Path | None = None
    python: str = ""
    prefix: Mapping[str, str] = field(default_factory=dict)
    removed: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    imports: tuple[Import, ...] = ()
    assignments: tuple[Assignment, ...] = ()
    literals: tuple[PathLiteral, ...] = ()
    computed: tuple[PathLiteral, ...] = ()
    dotenv: tuple[Setting, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that the rules may look at."""

    environ: Mapping[str, str]
    home: Path
    cwd: Path
    umask: int = 0o022
    user: str = ""
    group: str = ""
    interpreter: Interpreter | None = None
    settings: tuple[Setting, ...] = ()
    places: Mapping[str, Place] = field(default_factory=dict)
    roots: Mapping[str, Place] = field(default_factory=dict)
    """Caches of the inventory, those in use, and the directories above them."""
    looked_at: Mapping[str, str] = field(default_factory=dict)
    """Where the libraries look for the caches of datasets and of torch, by kind."""
    mount_of: Mapping[str, Mount] = field(default_factory=dict)
    candidates: tuple[Candidate, ...] = ()
    rooms: tuple[Room, ...] = ()
    parts: tuple[ForeignPart, ...] = ()
    locks: tuple[LockTest, ...] = ()
    tokens: tuple[Token, ...] = ()
    clients: tuple[HubClient, ...] = ()
    inventory: Inventory | None = None
    verification: Verification | None = None
    closed: Mapping[str, str] = field(default_factory=dict)
    """Directories of broken files in which this user may delete nothing, with their owners."""
    bad_files: tuple[BadFile, ...] = ()
    set_aside: tuple[Path, ...] = ()
    dead_runs: tuple[DeadRun, ...] = ()
    idle_locks: Mapping[str, int] = field(default_factory=dict)
    unfinished: tuple[Unfinished, ...] = ()
    program: Program | None = None
    unasked: tuple[str, ...] = ()

    @property
    def uses(self) -> tuple[Use, ...]:
        """Every place of every library that was asked."""
        return self.interpreter.uses if self.interpreter else ()
