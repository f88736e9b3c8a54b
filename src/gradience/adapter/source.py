"""Find the adapters that a path or a Hub id names, without reading a single weight.

One idea: file names decide. A directory either holds an adapter itself, and then it is the
answer (its `checkpoint-*` are earlier states of the same run), or the adapters below it are. A
config belongs to the weights that were saved under PEFT's own name beside it, and to no others,
so that the scale of one run is never applied to the factors of another.
"""

import os
from pathlib import Path

from msgspec.structs import replace

from gradience.adapter.hub import fetch_from_hub, parse_hub_id
from gradience.adapter.layout import (
    CONFIG,
    PEFT_WEIGHTS,
    AdapterLocation,
    Notice,
    full_model_files,
    listing_of,
    locate,
    no_weights,
)
from gradience.adapter.names import natural_key
from gradience.errors import AdapterNotFoundError, GradienceError, UnreadableError, UsageError
from gradience.paths import nearest

__all__ = ["AdapterLocation", "find_adapters", "find_one"]

_SHOWN = 3
MAX_DEPTH = 8
MAX_DIRECTORIES = 10_000
_SKIPPED = frozenset({"node_modules", "__pycache__", "site-packages"})


def _quiet(_: str) -> None:
    """Nobody listens."""


def find_adapters(
    target: str | os.PathLike[str], *, notice: Notice = _quiet
) -> tuple[AdapterLocation, ...]:
    """Every adapter that `target` names, in natural order; at least one.

    Parameters
    ----------
    target : str or path
        A weights file, a directory with one adapter, a directory above several, or a Hub id:
        `org/name`, `org/name@revision`, `org/name:folder` or `org/name@revision:file`. A path
        that exists is always taken as a path.
    notice : callable
        Told what is skipped and why, and when the Hub is asked.

    Raises
    ------
    AdapterNotFoundError
        If there is none; says what is there instead.
    UnreadableError
        If the directory cannot be listed.
    StorageError
        If what the Hub sends cannot be written into its cache.
    """
    path = _path(target)
    if not _exists(path):
        hub_id = parse_hub_id(os.fspath(target))
        if hub_id is None:
            raise _missing(path)
        try:
            return fetch_from_hub(hub_id, notice=notice)
        except AdapterNotFoundError as error:
            raise _with_path_hint(error, path) from error
    if path.name == CONFIG:
        path = path.parent
    if path.is_dir():
        return _find_in_directory(path, notice)
    return (_single_file(path),)


def find_one(target: str | os.PathLike[str], *, notice: Notice = _quiet) -> AdapterLocation:
    """The one adapter that `target` names.

    Raises
    ------
    UsageError
        If it names several; lists them.
    UnreadableError
        As `find_adapters`.
    """
    found = find_adapters(target, notice=notice)
    if len(found) == 1:
        return found[0]
    names = ", ".join(location.name for location in found[:_SHOWN])
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    raise UsageError(
        f"{os.fspath(target)} holds {len(found)} adapters: {names}{more}",
        remedy=f"Name one of them, such as {found[-1].source}.",
    )


def _find_in_directory(root: Path, notice: Notice) -> tuple[AdapterLocation, ...]:
    own = listing_of(_files_in(root))
    if own.weights:
        name = "" if own.named_files else root.resolve().name
        found = locate(root, own, name=name, source=str(root))
        return _each_file_once(sorted(found, key=lambda f: natural_key(f.name)))
    if own.has_config:
        # Not the checkpoints below it: they are not what this run ended with.
        raise no_weights(root)
    below = _Walk(root, notice).run()
    if below:
        return below
    raise _nothing_in(root)


class _Walk:
    """One breadth-first walk below a directory: each directory and each weights file once."""

    def __init__(self, root: Path, notice: Notice) -> None:
        self.root = root
        self.notice = notice
        self.visited = {_identity(root)}
        self.links: list[Path] = []
        self.found: list[AdapterLocation] = []

    def run(self) -> tuple[AdapterLocation, ...]:
        """Walk; a link is looked at last and never walked through, so that no loop can hold it."""
        level = [self.root]
        for _ in range(MAX_DEPTH):
            level = [child for directory in level for child in self._children(directory)]
        if level:
            self.notice(f"{level[0]} is more than {MAX_DEPTH} levels below {self.root}: skipped")
        for link in sorted(self.links):
            if self._is_new(link):
                self._look_at(link)
        return _each_file_once(sorted(self.found, key=lambda f: natural_key(f.name)))

    def _children(self, directory: Path) -> list[Path]:
        """Subdirectories to walk next: those that hold no adapter themselves."""
        try:
            with os.scandir(directory) as listed:
                entries = sorted(listed, key=lambda e: e.name)
        except OSError as error:
            self.notice(f"{directory} was skipped: {error.strerror}")
            return []
        children = []
        for entry in entries:
            if entry.name.startswith(".") or entry.name in _SKIPPED or not _is_directory(entry):
                continue
            child = directory / entry.name
            if entry.is_symlink():
                self.links.append(child)
            elif self._is_new(child) and not self._look_at(child):
                children.append(child)
        return children

    def _is_new(self, directory: Path) -> bool:
        identity = _identity(directory)
        if identity in self.visited:
            return False
        if len(self.visited) >= MAX_DIRECTORIES:
            raise AdapterNotFoundError(
                f"there are more than {MAX_DIRECTORIES} directories below {self.root}",
                remedy="Name the directory of the run, or of each adapter.",
            )
        self.visited.add(identity)
        return True

    def _look_at(self, directory: Path) -> bool:
        """Note the adapters in a directory; whether there were any."""
        try:
            names = listing_of(_files_in(directory))
        except UnreadableError as error:
            self.notice(f"skipped: {error}")
            return True
        if names.has_config and not names.weights:
            # Reported when it is opened: one broken run must not hide its neighbours.
            names = replace(names, config=True, weights=(PEFT_WEIGHTS[0],))
        name = directory.relative_to(self.root).as_posix()
        self.found += locate(directory, names, name=name, source=str(directory))
        return bool(names.weights)


def _each_file_once(found: list[AdapterLocation]) -> tuple[AdapterLocation, ...]:
    """Drop an adapter that was reached before under another name (a link, a hard link)."""
    seen: set[object] = set()
    kept = []
    for location in found:
        identity = _identity(location.weights) or location.weights
        if identity not in seen:
            seen.add(identity)
            kept.append(location)
    return tuple(kept)


def _single_file(path: Path) -> AdapterLocation:
    """One weights file; a config beside it counts when the file has the name PEFT gives it."""
    config = path.with_name(CONFIG)
    own = path.name in PEFT_WEIGHTS and config.is_file()
    return AdapterLocation(
        name=path.absolute().parent.name if path.name in PEFT_WEIGHTS else path.stem,
        weights=path,
        config=config if own else None,
        source=str(path),
    )


def _path(target: str | os.PathLike[str]) -> Path:
    if not os.fspath(target):
        # Path("") is the working directory: an unset variable in a script must not mean that.
        raise AdapterNotFoundError("the path is empty", remedy="Name a path or a Hub id.")
    try:
        return Path(target).expanduser()
    except RuntimeError as error:
        raise AdapterNotFoundError(
            f"{os.fspath(target)} names the home directory of nobody here",
            remedy="Write the path out.",
        ) from error


def _exists(path: Path) -> bool:
    """Whether something is there, broken links and loops told apart from nothing."""
    try:
        path.stat()
    except FileNotFoundError:
        if path.is_symlink():
            raise AdapterNotFoundError(
                f"{path} is a link to {path.readlink()}, which does not exist",
                remedy="Name the directory itself, or mend the link.",
            ) from None
        return False
    except (OSError, ValueError) as error:
        raise AdapterNotFoundError(
            f"{path} cannot be opened: {getattr(error, 'strerror', None) or error}",
            remedy="Name another path; look at this one with `ls -ld`.",
        ) from error
    return True


def _files_in(directory: Path) -> list[str]:
    """Names of the files in a directory; a link to a file counts.

    What has the name of an adapter's file and is none (a link to nothing, a pipe) counts where no
    weights are beside it: opening it says what it is.
    """
    try:
        with os.scandir(directory) as entries:
            is_file = {entry.name: _is_file(entry) for entry in entries}
    except OSError as error:
        raise UnreadableError(
            f"{directory} cannot be listed: {error.strerror}",
            remedy="Look at its permissions with `ls -ld`, or run as a user who may read it.",
        ) from error
    whole = any(is_file.get(name) for name in PEFT_WEIGHTS)
    meant = (CONFIG,) if whole else (CONFIG, *PEFT_WEIGHTS)
    return [name for name, regular in is_file.items() if regular or name in meant]


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link that loops
        return False


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that loops
        return False


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _missing(path: Path) -> AdapterNotFoundError:
    return AdapterNotFoundError(
        f"{path}: there is no such file or directory, and it is no Hub id",
        remedy=_did_you_mean(path),
    )


def _with_path_hint(error: GradienceError, path: Path) -> AdapterNotFoundError:
    """A name that is neither a path nor on the Hub: say what else it could have meant."""
    close = nearest(path)
    hint = f"Or did you mean the path {close}? " if close else ""
    return AdapterNotFoundError(
        f"{error} (and there is no such path here)", remedy=f"{hint}{error.remedy}"
    )


def _did_you_mean(path: Path) -> str:
    close = nearest(path)
    return f"Did you mean {close}?" if close else "Name a directory, a weights file or a Hub id."


def _nothing_in(root: Path) -> AdapterNotFoundError:
    """Say what a directory without an adapter has instead."""
    files = _files_in(root)
    model = full_model_files(files)
    if model:
        return AdapterNotFoundError(
            f"{root} holds a full model ({model[0]}), not an adapter",
            remedy="Name the adapter's directory, and give the model with --base-model.",
        )
    names = sorted(path.name for path in root.iterdir())
    if not names:
        return AdapterNotFoundError(
            f"{root} is empty", remedy="Name a directory that holds an adapter."
        )
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return AdapterNotFoundError(
        f"there is no adapter in or below {root}; it has {shown}",
        remedy=f"An adapter is {CONFIG} with {PEFT_WEIGHTS[0]}, or a .safetensors file.",
    )
