"""The store of ollama: `<models>/blobs/sha256-<64 hex>`, whole files that are never written again.

A download is written to `sha256-<hex>-partial...` and renamed (server/download.go of ollama).
"""

import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

BLOB = re.compile(r"sha256-([0-9a-f]{64})")
_SYSTEM = Path("/usr/share/ollama/.ollama/models")  # where its service keeps them


def stores(environ: Mapping[str, str], home: Path) -> tuple[Path, ...]:
    """Where ollama would keep models, for this user and for the service of the machine."""
    named = environ.get("OLLAMA_MODELS", "")
    own = Path(named) if named.startswith("/") else home / ".ollama" / "models"
    return own, _SYSTEM


def blobs(store: Path) -> Iterator[tuple[str, str, os.stat_result]]:
    """SHA-256, path and `lstat` of each whole blob; nothing where there is no such store."""
    try:
        with os.scandir(store / "blobs") as entries:
            for entry in entries:
                match = BLOB.fullmatch(entry.name)
                if match is not None:
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode):
                        yield match[1], entry.path, status
    except OSError:
        return
