"""Our own record of last use: whole, bounded, and no reason to fail."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gradience import uses

NOW = datetime(2026, 11, 23, tzinfo=UTC)
REPO = "models--org--name"


def weights(hub: Path, revision: str = "a" * 40) -> Path:
    file = hub / REPO / "snapshots" / revision / "model.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"x" * 100)
    return file


def test_a_file_of_a_hub_cache_is_a_use_of_its_revision_and_its_repository(tmp_path: Path) -> None:
    file = weights(tmp_path / "hub")
    uses.note(tmp_path / "own", [file, tmp_path / "elsewhere.bin"], now=NOW)
    assert uses.recall(tmp_path / "own") == {
        str(file.parent): NOW.timestamp(),
        str(tmp_path / "hub" / REPO): NOW.timestamp(),
    }


def test_a_later_use_replaces_an_earlier_and_keeps_the_others(tmp_path: Path) -> None:
    old, new = weights(tmp_path / "hub"), weights(tmp_path / "hub", "b" * 40)
    uses.note(tmp_path, [old], now=NOW)
    uses.note(tmp_path, [new], now=NOW + timedelta(days=1))
    found = uses.recall(tmp_path)
    assert found[str(old.parent)] == NOW.timestamp()
    assert found[str(new.parent)] == found[str(tmp_path / "hub" / REPO)]


def test_nothing_is_written_for_files_outside_of_a_hub_cache(tmp_path: Path) -> None:
    uses.note(tmp_path / "own", [tmp_path / "adapter.safetensors"], now=NOW)
    assert not (tmp_path / "own").exists()


@pytest.mark.parametrize("garbage", [b"", b"{}", b'{"schema": "gradience.uses/v9"}', b"\xff"])
def test_a_record_that_cannot_be_read_is_empty_and_set_right(
    tmp_path: Path, garbage: bytes
) -> None:
    (tmp_path / "uses.json").write_bytes(garbage)
    assert uses.recall(tmp_path) == {}
    uses.note(tmp_path, [weights(tmp_path / "hub")], now=NOW)
    assert len(uses.recall(tmp_path)) == 2


def test_a_record_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    uses.note(tmp_path / "file" / "own", [weights(tmp_path / "hub")], now=NOW)


def test_an_audit_is_a_use_that_the_inventory_shows(tmp_path: Path) -> None:
    snapshot = weights(tmp_path / "hub").parent
    demo = Path(__file__).parents[2] / "examples" / "demo_adapter"
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (snapshot / name).write_bytes((demo / name).read_bytes())
    (snapshot / "model.safetensors").unlink()
    for path in (tmp_path / "hub").rglob("*"):
        os.utime(path, (1e9, 1e9))
    environ = {
        **os.environ,
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "GRADIENCE_CACHE_DIR": str(tmp_path / "own"),
        "HOME": str(tmp_path),
    }

    def gradience(*args: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "gradience", *args],
            env=environ, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip

    gradience("audit", str(snapshot))
    inventory = json.loads(gradience("cache", "ls", "--kind", "hub", "--json"))["content"]
    (cache,) = [c for c in inventory["caches"] if c["entries"]]
    assert cache["entries"][0]["last_used_from"] == "record"
