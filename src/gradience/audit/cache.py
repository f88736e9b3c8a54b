"""Finished audits, remembered: keyed by the content of the adapter, the base and the options.

The key is a digest of everything that determines the numbers, so nothing has to be invalidated: a
changed adapter, base, option or version of Gradience asks for another file.
"""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import msgspec
from blake3 import blake3

from gradience import __version__, artifacts, files
from gradience.audit.finding_kinds import CACHE_CORRUPT, CACHE_UNWRITABLE
from gradience.audit.records import SCHEMA, AdapterAudit
from gradience.errors import ArtifactError, StorageError
from gradience.findings import Finding


class Remembered(msgspec.Struct, frozen=True, kw_only=True):
    """What the cache had: an audit, or the reason that there is none."""

    audit: AdapterAudit | None = None
    finding: Finding | None = None


def key(parts: Mapping[str, str | float | None]) -> str:
    """Digest of what determines an audit; the version of Gradience is always part of it."""
    plain = {**parts, "gradience": __version__, "schema": SCHEMA}
    return blake3(msgspec.json.encode(plain, order="sorted")).hexdigest(length=16)


def recall(directory: Path, name: str) -> Remembered:
    """The audit remembered under this key, if there is one that can be read."""
    path = _path(directory, name)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Remembered()
    except OSError as error:
        return Remembered(finding=CACHE_CORRUPT.found(f"{path}: {error.strerror}"))
    try:
        audit = artifacts.decode(data, SCHEMA, AdapterAudit, source=str(path))
    except ArtifactError as error:
        return Remembered(finding=CACHE_CORRUPT.found(str(error)))
    return Remembered(audit=audit)


def remember(directory: Path, name: str, audit: AdapterAudit, *, now: datetime) -> Finding | None:
    """Keep an audit; a disk that refuses is a finding, not a failure."""
    path = _path(directory, name)
    try:
        files.replace(path, artifacts.encode(SCHEMA, audit, now=now, indent=0))
    except StorageError as error:
        return CACHE_UNWRITABLE.found(str(error))
    return None


def _path(directory: Path, name: str) -> Path:
    return directory / f"{name}.json"
