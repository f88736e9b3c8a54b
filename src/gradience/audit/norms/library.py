"""The files of norms on this machine: one for each base model, revision and content."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

import msgspec

from gradience import files
from gradience.artifacts import Envelope
from gradience.audit.base.cache import unchecked
from gradience.audit.base.norms_file import (
    LARGEST,
    METHOD,
    NormsFile,
    believable,
    decode,
    named,
)
from gradience.audit.base.source import open_base
from gradience.audit.norms import travel
from gradience.audit.norms.records import NormsEntry, NormsList, Unreadable
from gradience.errors import GradienceError, UnreadableError, UsageError
from gradience.paths import exists, is_directory, nearest
from gradience.tensors.regular import read_regular


def listing(directory: Path) -> NormsList:
    """What is kept in a directory of norms; an absent one keeps nothing."""
    entries: list[NormsEntry] = []
    unreadable: list[Unreadable] = []
    for path in sorted(directory.glob("*.json")):
        try:
            entries.append(_entry(path))
        except UnreadableError as error:
            unreadable.append(Unreadable(name=path.name, message=str(error)))
    return NormsList(
        directory=str(directory),
        entries=tuple(sorted(entries, key=lambda e: (e.model.casefold(), e.revision or ""))),
        unreadable=tuple(unreadable),
    )


def find(directory: Path, text: str) -> Path:
    """The file of norms that a text names.

    Parameters
    ----------
    directory : Path
        Of the norms cache.
    text : str
        A path, the name of a file in the cache, a model with or without the start of its revision
        (`org/name@a1b2`), or the start of a fingerprint. The directory of a base model is known by
        its content, and by its name where one content is kept under several.

    Raises
    ------
    UsageError
        If it names none, or several; lists them.
    """
    named_file = _file(directory, text)
    if named_file is not None:
        return named_file
    entries = listing(directory).entries
    return _only(directory, text, _meant(entries, text), entries)


def in_cache(directory: Path, text: str) -> str:
    """The file in the cache where a text names one there, else the text: a URL or a Hub id.

    Raises
    ------
    UsageError
        If it can be neither.
    """
    named_file = _file(directory, text)
    if named_file is not None:
        return str(named_file)
    entries = listing(directory).entries
    meant = _meant(entries, text)
    if not meant and travel.is_elsewhere(text):
        return text
    return str(_only(directory, text, meant, entries))


def kept(directory: Path, text: str) -> Path:
    """The file in the cache that a text names, as `find`.

    Raises
    ------
    UsageError
        If it names none, several, or a file elsewhere.
    """
    path = find(directory, text)
    if path.absolute().parent != directory.absolute():
        raise UsageError(
            f"{text} is not among the norms in {directory}",
            remedy="`gradience norms ls` lists those; any other file is yours to remove.",
        )
    return path


def _file(directory: Path, text: str) -> Path | None:
    """The file of that path, or of that name in the cache."""
    paths = (Path(text), directory / text)
    return next((path for path in paths if exists(str(path)) and not is_directory(str(path))), None)


def _meant(entries: Sequence[NormsEntry], text: str) -> list[NormsEntry]:
    """The kept norms that a text may mean."""
    named_so = [entry for entry in entries if _is_meant(entry, text)]
    if not is_directory(text):
        return named_so
    try:
        with open_base(Path(text)) as base:
            same = [entry for entry in entries if entry.fingerprint == base.fingerprint]
    except GradienceError:
        # A directory that happens to have the name of a model.
        return named_so
    return [entry for entry in same if entry.model == base.name] or same


def _only(
    directory: Path, text: str, meant: Sequence[NormsEntry], entries: Sequence[NormsEntry]
) -> Path:
    """The file of the one that is meant."""
    if len(meant) == 1:
        return directory / meant[0].file
    if meant:
        names = ", ".join(f"{named(e.model, e.revision)} ({e.file})" for e in meant)
        raise UsageError(
            f"{text} may be {names}",
            remedy=f"Name one of them by its file: {meant[0].file}",
        )
    other = next((entry for entry in entries if _is_meant(entry, text)), None)
    if other is not None:
        raise UsageError(
            f"no norms are kept of what is in the directory {text}; those of {other.model} in "
            f"{other.file} are of another content",
            remedy=f"gradience norms measure {text}, or name the file: {other.file}",
        )
    raise UsageError(
        f"{text} is no file of norms, and {directory} keeps none of such a model",
        remedy=_instead(text, list(dict.fromkeys(e.model for e in entries))),
    )


def _instead(text: str, models: Sequence[str]) -> str:
    """What may help where a text names no norms."""
    close = get_close_matches(text.partition("@")[0], models, n=1)
    path = nearest(Path(text)) if text.endswith(".json") else None
    if path is not None or close:
        return f"Did you mean {path or close[0]}?"
    kept_here = f"Kept are: {', '.join(models)}." if models else "None are kept."
    if text.endswith(".json"):
        return f"Check the path. {kept_here}"
    return f"{kept_here} If it is a base model: gradience norms measure {text}"


def remove(path: Path) -> None:
    """Remove a file of norms; whoever is adding to it is waited for.

    Raises
    ------
    StorageError
        If the file system refuses.
    """
    with files.locked(path):
        files.remove(path)


def read(path: str | Path) -> NormsFile:
    """The content of a file of norms.

    Raises
    ------
    UnreadableError
        If it is not one, or cannot be read.
    """
    return decode(read_regular(Path(path), limit=LARGEST), source=str(path))


def _is_meant(entry: NormsEntry, text: str) -> bool:
    model, _, revision = text.partition("@")
    by_name = entry.model.casefold() == model.casefold() and (entry.revision or "").startswith(
        revision
    )
    digest = text.removeprefix("blake3:")
    by_content = len(digest) >= 6 and entry.fingerprint.removeprefix("blake3:").startswith(digest)
    return by_name or by_content


def _entry(path: Path) -> NormsEntry:
    data = read_regular(path, limit=LARGEST)
    content = decode(data, source=str(path))
    envelope = msgspec.json.decode(data, type=Envelope)
    norms, _ = believable(content.norms)
    widths = [norm.reached for norm in norms.values() if norm.lower > 0.0]
    return NormsEntry(
        file=path.name,
        model=content.model,
        revision=content.revision,
        fingerprint=content.fingerprint,
        weights=len(norms),
        unmeasurable=len(content.unmeasurable),
        tensors=len(content.tensors),
        width=max(widths, default=None),
        unchecked=len(unchecked(path, content)),
        bytes=len(data),
        written_at=envelope.written_at,
        written_by=envelope.written_by,
        usable=content.method == METHOD,
    )
