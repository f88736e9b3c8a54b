"""Caches of layouts that are installed no longer, by name: `gradience doctor` looks for them there.

A root that the user chose is written nowhere but in the static file. When that is rewritten or
removed, the lines that name caches with content move to a file beside it, which no shell reads.
"""

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from gradience import files
from gradience.paths import is_directory
from gradience.storage.environment.exports.export import posix_quoted

_NAMES = ("HF_HUB_CACHE", "HF_DATASETS_CACHE", "TORCH_HOME")


def remembered_file(config: Path) -> Path:
    """Where the lines are kept, in the directory of Gradience's own settings."""
    return config / "former.sh"


def remember(old: bytes, file: Path) -> bool:
    """Keep what a static file said, and what was kept before, of caches that still hold something.

    Returns
    -------
    bool
        Whether the file has changed to hold something.

    Raises
    ------
    StorageError
        If the file cannot be written.
    """
    before = file.read_bytes() if file.is_file() else b""
    kept = dict.fromkeys(pair for pair in _pairs(before + old) if _filled(pair[1]))
    lines = [f"export {name}={posix_quoted(value)}\n" for name, value in kept]
    text = os.fsencode("".join(lines))
    if not lines:
        if before:
            files.remove(file)
    elif text != before:
        files.replace(file, text)
        return True
    return False


def _pairs(text: bytes) -> Iterator[tuple[str, str]]:
    """Variables and values of `export NAME='value'` and of fish's `set -gx NAME 'value'`."""
    for line in os.fsdecode(text).splitlines():
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            continue
        if words[:1] == ["export"] and len(words) == 2:
            name, _, value = words[1].partition("=")
        elif words[:2] == ["set", "-gx"] and len(words) == 4:
            name, value = words[2:]
        else:
            continue
        if name in _NAMES:
            yield name, value


def _filled(value: str) -> bool:
    try:
        return is_directory(value) and bool(os.listdir(value))  # noqa: PTH208 - a name, no path
    except OSError:
        return True
