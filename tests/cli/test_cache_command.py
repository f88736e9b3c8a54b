"""`gradience cache`: what a user types, reads, and gets back as an exit code."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from factories_caches import HubMaker

ALL = ["ls", "ls --all", "ls --by kind", "ls --by age", "ls --tree", "du"]


@pytest.fixture
def home(tmp_path):
    hub = HubMaker(tmp_path / ".cache" / "huggingface" / "hub", shared=True)
    hub.add("org/a", "1", {"w.bin": b"x" * 100_000})
    hub.add("org/b", "1", {"w.bin": b"x" * 100_000, "c.json": b"{}"})
    (hub.repo("org/b") / "refs" / "old").write_text("9" * 40)
    return tmp_path


def cache(home: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG", "PYTHONPATH")}
    return subprocess.run(
        [sys.executable, "-m", "gradience", "cache", *words],
        env=kept | {"HOME": str(home), "TMPDIR": str(home / "tmp"), "COLUMNS": "160"} | environ,
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("words", ALL)
def test_every_view_names_what_is_there(home, words):
    done = cache(home, *words.split())
    assert (done.returncode, done.stderr) == (0, "")
    assert "org/a" in done.stdout or "Hugging Face Hub" in done.stdout
    if words != "ls --by age":
        assert "[stale_ref]" in done.stdout


def test_json_is_the_artifact_and_nothing_else(home):
    done = cache(home, "ls", "org/*", "--json")
    envelope = json.loads(done.stdout)
    assert envelope["schema"] == "gradience.inventory/v1"
    (hub,) = envelope["content"]["caches"]
    assert [e["name"] for e in hub["entries"]] == ["org/b", "org/a"]
    assert hub["entries"][0]["shared_bytes"] >= 100_000


def test_bad_words_are_answered_with_a_remedy(home):
    for words, part in (
        (["ls", "--kind", "hubb"], "Did you mean 'hub'?"),
        (["ls", "--idle", "x"], "hint:"),
        (["ls", "--larger", "10XX"], "hint:"),
        (["ls", "--at", "hub"], "--at hub=/mnt/old/hub"),
        (["ls", "--at", "hub=no/such"], "no/such is no directory"),
        (["verify", "none/*"], "nothing was checked"),
        (["lss"], "Did you mean 'ls'?"),
    ):
        done = cache(home, *words)
        assert done.returncode == 2, words
        assert part in done.stderr
        assert "Traceback" not in done.stderr


def test_no_cache_at_all_is_said(tmp_path):
    done = cache(tmp_path, "ls", "--kind", "hub")
    assert done.returncode == 0
    assert "No cache is there yet." in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("words", ["cache ls", "cache ls --json", "env --no-create --format bash"])
def test_output_to_a_full_disk_is_refused_in_two_lines(home, words):
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "gradience", *words.split()],
            env={"PATH": os.environ["PATH"], "HOME": str(home)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 5
    assert "error: standard output cannot be written: No space left on device\nhint:" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_closed_output_is_no_crash(home):
    command = f'"{sys.executable}" -m gradience cache ls >&-'
    environ = {"PATH": os.environ["PATH"], "HOME": str(home)}
    done = subprocess.run(["sh", "-c", command], env=environ, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_cache_that_cannot_be_looked_at_is_not_called_absent(tmp_path):
    (tmp_path / "hf").symlink_to("hf")  # as little to be entered as a directory of somebody else
    environ = {"HF_HOME": str(tmp_path / "hf")}
    for words in (["ls", "--kind", "hub"], ["du", "--kind", "hub"]):
        done = cache(tmp_path, *words, **environ)
        assert "No cache is there yet" not in done.stdout
        assert "1 directory could not be looked at" in done.stdout
        assert f"{tmp_path}/hf/hub: too many levels of symbolic links" in done.stdout
    (tmp_path / ".cache/torch/hub/checkpoints").mkdir(parents=True)
    (tmp_path / ".cache/torch/hub/checkpoints/a.pth").write_bytes(b"x")
    done = cache(tmp_path, "ls", "--kind", "hub", "--kind", "torch", **environ)
    assert "1 entry, " in done.stdout
    assert "1 directory could not be looked at" in done.stdout
    content = json.loads(cache(tmp_path, "ls", "--kind", "hub", "--json", **environ).stdout)
    assert content["content"]["absent"] == {}
    assert [one["path"] for one in content["content"]["closed"]] == [f"{tmp_path}/hf/hub"]


def test_verify_exits_with_one_on_a_problem(home):
    assert cache(home, "verify", "--deep").returncode == 0
    payloads = (home / ".cache/huggingface/hub/blobs").glob("*/" + "?" * 64)
    payload = max(payloads, key=lambda path: path.stat().st_size)
    payload.write_bytes(b"y" * 100_000)
    assert cache(home, "verify").returncode == 0
    done = cache(home, "verify", "--deep", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["schema"] == "gradience.cache_verify/v1"
    assert "wrong_hash" in cache(home, "verify", "--deep").stdout


def test_help_lists_the_commands(home):
    done = cache(home, "--help")
    assert done.returncode == 0
    for name in ("ls", "du", "verify", "watch"):
        assert f"  {name} " in done.stdout


def test_a_filter_without_a_hit_does_not_deny_the_caches(home):
    done = cache(home, "ls", "nothere/*")
    assert done.returncode == 0
    assert "Nothing matches: looked at 3 entries." in done.stdout
    content = json.loads(cache(home, "ls", "nothere/*", "--json").stdout)["content"]
    assert content["caches"] == []
    assert content["physical_bytes"] == 0
