"""The directories of a layout, made."""

import os
from pathlib import Path

from gradience import files
from gradience.errors import StorageError
from gradience.storage.environment.layout import Layout

_SHARED = (Path("/tmp"), Path("/var/tmp"))


def create_directories(layout: Layout) -> tuple[Path, ...]:
    """Make every directory of a layout; those that were missing are returned.

    Raises
    ------
    StorageError
        If one cannot be made or written, or a directory below /tmp belongs to another user, who
        could plant code in a compile cache.
    """
    made = []
    for name in layout.directories:
        path = Path(name)
        if not path.is_dir():
            _make(path)
            made.append(path)
        if not os.access(path, os.W_OK | os.X_OK):
            raise StorageError(
                f"{path} cannot be written by this user",
                remedy=f"Ask its owner for permission, or choose another place: --root DIR "
                f"(ls -ld {path} shows the owner).",
            )
        _check_owner(path)
    return tuple(made)


def _make(path: Path) -> None:
    """Make a directory; the first one below /tmp is closed to others."""
    for shared in _SHARED:
        if shared in path.parents:
            top = shared / path.relative_to(shared).parts[0]
            if not top.exists():
                files.make_dir(top, mode=0o700)
    files.make_dir(path)


def _check_owner(path: Path) -> None:
    for shared in _SHARED:
        if shared in path.parents:
            top = shared / path.relative_to(shared).parts[0]
            if top.lstat().st_uid not in (os.getuid(), 0):
                raise StorageError(
                    f"{top} belongs to another user, who could plant code in a compile cache",
                    remedy="Remove it, or choose another place: --root DIR.",
                )
