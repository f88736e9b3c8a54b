"""One checkpoint, judged: would a resume from it go on, and exactly?"""

import contextlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from gradience.storage.checkpoints.contents import cut_off, damaged
from gradience.storage.checkpoints.names import STATE, lacking, starts_anew, step_of
from gradience.storage.checkpoints.records import Checkpoint, Resumes
from gradience.units import plural

_ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")
_LARGEST_STATE = 512 * 2**20


def judge(folder: Path, *, deep: bool = False) -> Checkpoint:
    """What a resume would find in a directory `checkpoint-<step>`.

    Parameters
    ----------
    deep : bool
        Read every byte, where the ends and headers of files are looked at otherwise.
    """
    size, files = weigh(folder)
    names = _names(folder)
    adapters = any((folder / n / a).is_file() for n in names for a in _ADAPTERS)
    problems = [
        *lacking(names, subdirectories_with_adapter=adapters),
        *_state_problems(folder, names),
        *_missing_shards(folder, names),
        *(f"{p.relative_to(folder)}: {why}" for p, why in bad_files(folder, deep=deep)),
    ]
    anew = starts_anew(names)
    resumes: Resumes = "no" if problems else "partly" if anew else "exactly"
    return Checkpoint(
        path=str(folder),
        step=step_of(folder.name) or 0,
        bytes=size,
        files=files,
        resumes=resumes,
        problems=tuple(problems),
        anew=() if problems else tuple(anew),
        written=_written(folder),
    )


def bad_files(folder: Path, *, deep: bool = False) -> Iterator[tuple[Path, str]]:
    """Files of a checkpoint that are cut off or damaged, each with the reason."""
    look: Callable[[Path], str] = damaged if deep else cut_off
    for path in _files(folder):
        try:
            problem = look(path)
        except FileNotFoundError:
            continue  # it was renamed or removed meanwhile
        except OSError as error:
            problem = str(error.strerror)
        if problem:
            yield path, problem


def weigh(folder: Path) -> tuple[int, int]:
    """Bytes on the disk and inodes of a directory with all that is in it."""
    size = count = 0
    for directory, _, names in os.walk(folder):
        for name in [".", *names]:
            try:
                status = os.lstat(os.path.join(directory, name))  # noqa: PTH118 - strings
            except OSError:
                continue  # gone meanwhile
            size += status.st_blocks * 512
            count += 1
    return size, count


def state_of(folder: Path) -> dict[str, object]:
    """What `trainer_state.json` says; empty where it cannot be read."""
    try:
        found = json.loads((folder / STATE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 - names, not paths
    except OSError:
        return []


def _files(folder: Path) -> list[Path]:
    return sorted(
        Path(directory, name) for directory, _, names in os.walk(folder) for name in names
    )


def _state_problems(folder: Path, names: list[str]) -> list[str]:
    if STATE not in names:
        return []
    path = folder / STATE
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST_STATE:
            return [f"{STATE} is no file that a Trainer wrote"]
    except OSError as error:
        return [f"{STATE}: {error.strerror}"]
    if "global_step" not in state_of(folder):
        return [f"{STATE} is cut off or no JSON ({status.st_size} bytes)"]
    return []


def _missing_shards(folder: Path, names: list[str]) -> list[str]:
    """Shards that an index names and that are not there."""
    found = []
    for name in names:
        if not name.endswith(".index.json"):
            continue
        try:
            shards = set(json.loads((folder / name).read_bytes())["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            found.append(f"{name} is cut off or no index")
            continue
        gone = sorted(str(s) for s in shards if str(s) not in names)
        if gone:
            found.append(f"{name} names {plural(len(gone), 'shard')} not there, first {gone[0]}")
    return found


def _written(folder: Path) -> float:
    newest = 0.0
    for path in [folder, *_files(folder)]:
        with contextlib.suppress(OSError):  # gone meanwhile
            newest = max(newest, path.lstat().st_mtime)
    return newest
