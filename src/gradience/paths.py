"""Where Gradience keeps its own files.

`GRADIENCE_CACHE_DIR` decides; without it, the promised local layout `~/.cache/gradience`. The
environment and the home directory arrive as arguments.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from gradience.errors import UsageError

CACHE_VARIABLE = "GRADIENCE_CACHE_DIR"
SET_ASIDE = ".gradience"
"""The directory in a cache that is being changed: what was set aside, and the trash."""


def cache_dir(environ: Mapping[str, str], home: Path) -> Path:
    """The directory for Gradience's own caches, absolute; it need not exist yet.

    `~` and `$VAR` are expanded by us: a value from a dotenv file or a Dockerfile arrives literal.
    An empty value counts as unset.

    Raises
    ------
    UsageError
        If the value is relative, or names a variable that is not set: the cache would follow the
        working directory.

    Examples
    --------
    >>> str(cache_dir({"GRADIENCE_CACHE_DIR": "$SCRATCH/g", "SCRATCH": "/scratch/me"}, Path("/h")))
    '/scratch/me/g'
    >>> str(cache_dir({}, Path("/home/me")))
    '/home/me/.cache/gradience'
    """
    value = environ.get(CACHE_VARIABLE, "").strip()
    if not value:
        return home / ".cache" / "gradience"
    expanded = Path(_expand(value, environ, home))
    if not expanded.is_absolute() or "$" in str(expanded):
        raise UsageError(
            f"{CACHE_VARIABLE}={value!r} is not an absolute path",
            remedy=f"Set it to one: export {CACHE_VARIABLE}=/workspace/gradience_cache",
        )
    return expanded


def _expand(value: str, environ: Mapping[str, str], home: Path) -> str:
    """Expand a leading `~` and `$VAR`/`${VAR}` from the given environment only."""
    if value == "~" or value.startswith("~/"):
        value = str(home) + value[1:]
    return re.sub(r"\$(?:(\w+)|\{(\w+)\})", lambda m: environ.get(m[1] or m[2], m[0]), value)


def base_norms_dir(environ: Mapping[str, str], home: Path) -> Path:
    """Where norms of base models are remembered: `$GRADIENCE_CACHE_DIR/base_norms`."""
    return cache_dir(environ, home) / "base_norms"


def audits_dir(environ: Mapping[str, str], home: Path) -> Path:
    """Where finished audits are remembered: `$GRADIENCE_CACHE_DIR/audits`."""
    return cache_dir(environ, home) / "audits"


def as_path(value: str | os.PathLike[str], home: Path) -> Path:
    """A path that a user gave, with `~` expanded."""
    text = os.fspath(value)
    return Path(str(home) + text[1:]) if text == "~" or text.startswith("~/") else Path(text)


def is_file(text: str) -> bool:
    """Whether a text is the path of a file; one too long for a path is none."""
    try:
        return Path(text).is_file()
    except OSError:
        return False


def exists(text: str) -> bool:
    """Whether a text is the path of anything; the empty one and one too long are none."""
    try:
        return bool(text) and Path(text).exists()
    except OSError:
        return False


def is_directory(text: str) -> bool:
    """Whether a text is the path of a directory; the empty one and one too long are none."""
    try:
        return bool(text) and Path(text).is_dir()
    except OSError:
        return False


def nearest(path: Path) -> Path | None:
    """The existing path that a missing one was most likely meant to be; None without a likely one.

    The first part that does not exist is matched against its siblings, then the next one below it.
    """
    from difflib import get_close_matches  # noqa: PLC0415 - only for a message

    found = Path(path.anchor)
    for part in path.relative_to(path.anchor).parts if path.anchor else path.parts:
        if not exists(str(found / part)):
            close = get_close_matches(part, _names(found), n=1)
            if not close:
                return None
            part = close[0]  # noqa: PLW2901 - the part that was meant
        found /= part
    return found


def _names(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)  # noqa: PTH208 - names, not paths, and of "." too
    except OSError:
        return []
