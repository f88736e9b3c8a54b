"""What lies below a project: downloads with `local_dir`, and Trainer checkpoints.

`hf download --local-dir DIR` writes plain files into DIR, and what it knows of them into
`DIR/.cache/huggingface/download/<file>.metadata`. A Trainer checkpoint is a directory
`checkpoint-<step>` with a `trainer_state.json`; half of its bytes are the optimizer's, which only a
resume needs.
"""

from collections.abc import Iterator

from gradience.storage.checkpoints.names import (
    CHECKPOINT,
    OWN_DIR,
    RESUME,
    STATE,
    WEIGHTS,
    lacking,
)
from gradience.storage.inventory.caches.kind import (
    CacheKind,
    Listing,
    Look,
    Piece,
    always,
    entry,
    piece_of,
    read_text,
    whole_entry,
)
from gradience.storage.inventory.records import Damage, Entry
from gradience.storage.inventory.scan import Directory, File
from gradience.storage.inventory.tally import BLOCK, Tally

_TRAINED = "Written by a training run: nowhere else unless you pushed it."
_STATE = "Written by a training run; only a resume from this step needs it."
_FETCHED = "Downloaded again from the Hub; files you changed would be lost."


def entries(look: Look) -> Listing:
    """One entry per download directory and per checkpoint; the rest of a project is not listed."""
    found: list[Entry] = []
    stack = [look.tree]
    while stack:
        directory = stack.pop()
        if CHECKPOINT.fullmatch(directory.name) and _is_checkpoint(directory):
            found.append(_checkpoint(look, directory))
            continue
        notes = _notes(directory)
        if notes is not None:
            found.append(_local_dir(look, directory, notes))
        # What lies in OWN_DIR is no checkpoint yet, or not any more.
        stack += [d for d in directory.dirs if d.name not in (".git", "node_modules", OWN_DIR)]
    return found, ""


def _is_checkpoint(directory: Directory) -> bool:
    return any(
        file.name == STATE or RESUME.fullmatch(file.name) or WEIGHTS.fullmatch(file.name)
        for file in directory.files
    )


def _checkpoint(look: Look, directory: Directory) -> Entry:
    state, dirs = _resume_state(directory)
    run = directory.path.rpartition("/")[0].removeprefix(look.tree.path).strip("/")
    return entry(
        look,
        Tally().add_tree(directory),
        what="checkpoint",
        name=f"{run}/{directory.name}" if run else directory.name,
        path=directory.path,
        recoverable="lost",
        how=_TRAINED,
        damage=list(_broken(directory)),
        parts=[_state_entry(look, directory, state, dirs)] if state or dirs else [],
    )


def _resume_state(directory: Directory) -> tuple[list[File], list[Directory]]:
    return (
        [file for file in directory.files if RESUME.fullmatch(file.name)],
        [child for child in directory.dirs if RESUME.fullmatch(child.name)],
    )


def _state_entry(
    look: Look, directory: Directory, files: list[File], dirs: list[Directory]
) -> Entry:
    tally = Tally()
    for file in files:
        tally.add_file(file, directory.dev)
    for child in dirs:
        tally.add_tree(child)
    return entry(
        look,
        tally,
        what="optimizer_state",
        name="optimizer, scheduler and random states",
        path=directory.path,
        recoverable="lost",
        how=_STATE,
        belongs_to=directory.name,
    )


def _broken(directory: Directory) -> Iterator[Damage]:
    """What names and sizes in a checkpoint tell; `gradience checkpoints verify` looks closer."""
    names = [*(file.name for file in directory.files), *(d.name for d in directory.dirs)]
    adapters = any(_has_adapter(child) for child in directory.dirs)
    why = lacking(names, subdirectories_with_adapter=adapters)
    if why:
        yield Damage(
            code="broken_checkpoint",
            path=directory.path,
            message=f"{directory.name}: {'; '.join(why)}. resume_from_checkpoint=True would choose "
            "it if it is the newest",
        )
    for file in directory.files:
        if file.size == 0 and WEIGHTS.fullmatch(file.name):
            yield Damage(
                code="truncated",
                path=f"{directory.path}/{file.name}",
                message=f"{file.name} is empty",
            )


def _has_adapter(directory: Directory) -> bool:
    return any(file.name.startswith("adapter_model.") for file in directory.files)


def _notes(directory: Directory) -> Directory | None:
    """`.cache/huggingface/download` of a directory, if something was downloaded into it."""
    cache = directory.child(".cache")
    huggingface = cache.child("huggingface") if cache else None
    return huggingface.child("download") if huggingface else None


Noted = tuple[str, str, File, str]  # name within the repo, path, the file, path of its note


def local_dirs(tree: Directory) -> Iterator[tuple[Directory, list[Noted]]]:
    """Directories that were downloaded into, with the files that notes speak of."""
    for directory in _walk(tree):
        notes = _notes(directory)
        if notes is not None:
            yield directory, [noted for noted, _ in _noted(directory, notes)]


def _noted(directory: Directory, notes: Directory) -> Iterator[tuple[Noted, int]]:
    """Each noted file that is there, and the device it is on."""
    below = {d.path: d for d in _walk(directory)}
    for place in _walk(notes):
        inner = place.path[len(notes.path) :]
        holder = below.get(directory.path + inner)
        files = {file.name: file for file in holder.files} if holder else {}
        for note in place.files:
            name = note.name.removesuffix(".metadata")
            if holder and name != note.name and name in files:
                inside = f"{inner}/{name}".lstrip("/")
                path, noted_at = f"{holder.path}/{name}", f"{place.path}/{note.name}"
                yield (inside, path, files[name], noted_at), holder.dev


def _local_dir(look: Look, directory: Directory, notes: Directory) -> Entry:
    tally = Tally()
    commits: set[str] = set()
    for (_, _, file, note), dev in _noted(directory, notes):
        tally.add_file(file, dev)
        commits.add((read_text(note, 256) or "").partition("\n")[0])
    own = directory.child(".cache")
    known = own.child("huggingface") if own else None
    if known is not None:
        tally.add_tree(known)
    damage = [
        _part(look, f"{place.path}/{file.name}", file)
        for place in _walk(notes)
        for file in place.files
        if file.name.endswith(".incomplete")
    ]
    name = directory.path.removeprefix(look.tree.path).strip("/")
    return entry(
        look,
        tally,
        what="local_dir",
        name=name or directory.name,
        path=directory.path,
        recoverable="download",
        how=_FETCHED,
        revision=next(iter(commits)) if len(commits) == 1 else "",
        damage=damage,
    )


def _walk(directory: Directory) -> Iterator[Directory]:
    stack = [directory]
    while stack:
        found = stack.pop()
        yield found
        stack += found.dirs


def _part(look: Look, path: str, file: File) -> Damage:
    return Damage(
        code="incomplete",
        path=path,
        message=f"the download {file.name[:20]} was not finished",
        physical_bytes=file.blocks * BLOCK,
        age_seconds=look.age(file.mtime),
    )


def pieces(look: Look, found: Entry) -> list[Piece]:
    """The states of a checkpoint; of a download, what notes speak of and nobody changed since."""
    directory = look.below(found.path)
    if directory is None or found.what == "checkpoint":
        return whole_entry(look, found)
    if found.what == "optimizer_state":
        files, dirs = _resume_state(directory)
        named = [piece_of(look, f"{directory.path}/{file.name}", file) for file in files]
        return named + [_directory(look, child) for child in dirs]
    notes = _notes(directory)
    assert notes is not None
    fetched = [
        piece_of(look, path, file)
        for (_, path, file, note), _ in _noted(directory, notes)
        if file.mtime <= _noted_at(note) + 1
    ]
    above = notes.parent
    return [*fetched, *([_directory(look, above)] if above is not None else [])]


def _directory(look: Look, directory: Directory) -> Piece:
    size = Tally().add_tree(directory).frees_bytes
    return Piece(names=(directory.path.removeprefix(f"{look.tree.path}/"),), frees_bytes=size)


def _noted_at(note: str) -> float:
    """When a download was noted: the third line of its note (huggingface_hub, _local_folder.py)."""
    try:
        return float((read_text(note, 1024) or "").splitlines()[2])
    except (IndexError, ValueError):
        return 0.0


PROJECT = CacheKind(
    title="Project",
    holds="Downloads with local_dir and Trainer checkpoints below this directory; the rest of it "
    "is yours and not listed.",
    recoverable="lost",
    how=_TRAINED,
    variable="",
    entries=entries,
    keep=always,
    pieces=pieces,
)
