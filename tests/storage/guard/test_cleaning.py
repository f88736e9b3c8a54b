"""The cleaning that was allowed in advance: real, by the command, and only what it may take."""

import os
import sys
import time
from pathlib import Path

import pytest

from gradience.errors import UsageError
from gradience.storage.guard.cleaning import check_arguments, cleaner

MB = 1_000_000


def old(path: Path, nbytes: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(nbytes))
    long_ago = time.time() - 90 * 86400
    os.utime(path, (long_ago, long_ago))
    return path


def test_what_nothing_uses_goes_and_the_freed_bytes_are_measured(tmp_path: Path) -> None:
    hub = tmp_path / "hub"
    part = old(hub / "models--org--name/blobs/0123abcd.12345678.incomplete", 4 * MB)
    environ = {
        "HOME": str(tmp_path),
        "HF_HUB_CACHE": str(hub),
        "HF_HUB_OFFLINE": "1",
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    clean = cleaner(["--kind", "hub"], [tmp_path], environ=environ, home=tmp_path)
    assert clean(MB) >= 0
    assert not part.exists()


def test_arguments_that_clean_does_not_take_are_refused_before_a_run() -> None:
    with pytest.raises(UsageError, match="no arguments of `gradience cache clean`"):
        check_arguments(["--idel", "30d"], os.environ)
    check_arguments(["--idle", "30d"], os.environ)
