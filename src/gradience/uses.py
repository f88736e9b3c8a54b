"""What Gradience itself read from a hub cache, and when.

The record of last use that no mount option can falsify: an access time is absent on a noatime mount
and a day old under relatime. It is of our own reading alone, so what is not in it may be in use.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path

import msgspec

from gradience import artifacts, files
from gradience.errors import ArtifactError, StorageError

SCHEMA = "gradience.uses/v1"
_NAME = "uses.json"
_MOST = 10_000
"""Uses that are kept, the newest first: a file of about a megabyte."""

# <hub>/models--org--name/snapshots/<commit>/...
_IN_HUB = re.compile(r"(?P<repo>.*/(?:models|datasets|spaces)--[^/]+)/snapshots/[^/]+")


class Uses(msgspec.Struct, frozen=True, kw_only=True):
    """Path of a repository or revision in a hub cache to seconds since 1970."""

    last: dict[str, float]


def recall(directory: Path) -> Mapping[str, float]:
    """The record in Gradience's cache directory; empty where there is none to believe."""
    path = directory / _NAME
    try:
        return artifacts.decode(path.read_bytes(), SCHEMA, Uses, source=str(path)).last
    except (OSError, ArtifactError):
        return {}


def note(directory: Path, used: Iterable[Path], *, now: datetime) -> None:
    """Remember that these files were read; those outside of a hub cache are not remembered.

    A record that cannot be written is left as it is: it is a convenience, and no reason to fail.
    """
    places = {place for path in used for place in _places(path)}
    if not places:
        return
    path = directory / _NAME
    try:
        with files.locked(path, timeout=5):
            last = {**recall(directory), **dict.fromkeys(places, now.timestamp())}
            newest = sorted(last.items(), key=lambda use: -use[1])[:_MOST]
            files.replace(path, artifacts.encode(SCHEMA, Uses(last=dict(newest)), now=now))
    except StorageError:
        return


def _places(path: Path) -> tuple[str, ...]:
    """The repository and the revision that a file of a hub cache belongs to."""
    found = _IN_HUB.match(str(path.absolute()))
    return (found["repo"], found[0]) if found else ()
