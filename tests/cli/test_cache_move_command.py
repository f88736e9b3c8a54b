"""`gradience cache move` as a user runs it, with the real libraries reading what was moved."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from factories_caches import HubMaker, commit_of
from factories_changes import top
from factories_disks import second_disk
from hub_server import Repo, serve

FILES = {"w.safetensors": b"w" * 200_000, "config.json": b"{}"}
LOAD = """
import sys
from pathlib import Path
from huggingface_hub import scan_cache_dir, snapshot_download
for revision in ("main", sys.argv[1]):
    found = Path(snapshot_download("org/m", revision=revision, local_files_only=True))
    print(sum(len(f.read_bytes()) for f in found.rglob("*") if f.is_file()))
print(len(scan_cache_dir().warnings))
"""
READER = """
import sys
from safetensors import safe_open
with safe_open(sys.argv[1], framework="numpy") as weights:
    print("open", flush=True)
    sys.stdin.readline()
    print(float(weights.get_tensor("w").sum()), flush=True)
"""


DATASET = """
import sys
from datasets import load_dataset
found = load_dataset("json", data_files=sys.argv[1], split="train")
print(sum(found["n"]), flush=True)
sys.stdin.readline()
print(sum(found["n"]), flush=True)
"""


@pytest.fixture
def disk(tmp_path: Path):
    with second_disk(tmp_path) as directory:
        yield directory


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    return tmp_path / "hf" / "hub"


@pytest.fixture
def gradience(tmp_path: Path):
    def run(*words: object, **environ: str) -> "subprocess.CompletedProcess[str]":
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "XDG_"))}
        kept |= {"HF_HOME": str(tmp_path / "hf"), "HOME": str(tmp_path), "COLUMNS": "150"}
        return subprocess.run(
            [sys.executable, "-m", "gradience", *map(str, words)],
            env=kept | environ,
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )

    return run


def environ_of(hub: Path, **more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    return kept | {"HF_HUB_CACHE": str(hub), "HF_HOME": str(hub.parent), **more}


@pytest.mark.parametrize("shared", [False, True], ids=["per_repo", "store"])
def test_the_real_client_loads_every_revision_from_either_name(gradience, hub, disk, shared):
    made = HubMaker(hub, shared=shared)
    made.add("org/m", "a", FILES)
    made.add("org/m", "b", {**FILES, "more": b"m" * 9}, ref=None)
    done = gradience("cache", "move", hub, disk / "new" / "hub", "--yes", "--json")
    assert done.returncode == 0, done.stderr
    receipt = json.loads(done.stdout)["content"]
    assert receipt["freed"] >= 200_000
    assert hub.readlink() == disk / "new" / "hub"
    for place in (hub, disk / "new" / "hub"):
        loaded = subprocess.run(
            [sys.executable, "-c", LOAD, commit_of("b")],
            env=environ_of(place, HF_HUB_OFFLINE="1"),
            capture_output=True,
            text=True,
            check=True,
        )
        assert loaded.stdout.split() == ["200002", "200011", "0"]


def test_a_dry_run_and_a_plan_change_nothing_and_the_plan_is_applied_later(
    gradience, hub, disk, tmp_path
):
    HubMaker(hub).add("org/m", "a", FILES)
    done = gradience("cache", "move", hub, disk / "hub", "--dry-run")
    assert (done.returncode, top(disk)) == (0, [])
    assert "inodes are needed" in done.stdout
    assert gradience("cache", "move", hub, disk / "hub").returncode == 2  # no terminal, no --yes
    assert gradience("cache", "move", hub, disk / "hub", "--plan", "p.json").returncode == 0
    assert (top(disk), hub.is_symlink()) == ([], False)
    assert gradience("cache", "apply", tmp_path / "p.json", "--yes").returncode == 0
    assert hub.readlink() == disk / "hub"
    assert "already" in gradience("cache", "move", hub, disk / "hub", "--yes").stderr
    stale = gradience("cache", "apply", tmp_path / "p.json", "--yes")
    assert (stale.returncode, f"{hub} is a link to" in stale.stderr) == (2, True)
    assert "no unfinished move" in gradience("cache", "move", hub, disk / "h", "--abandon").stderr


def test_what_gradience_env_installed_names_the_new_place(gradience, hub, disk, tmp_path):
    root = tmp_path / "it's old"
    installed = gradience("env", "--root", root, "--install", "--format", "bash")
    assert installed.returncode == 0, installed.stderr
    (old,) = root.glob("hub")
    (old / "file").write_bytes(b"x")
    done = gradience("cache", "move", old, disk / "hub", "--yes")
    assert done.returncode == 0, done.stderr
    assert "env.sh names" in done.stdout
    said = subprocess.run(
        ["sh", "-c", ". ~/.config/gradience/env.sh; echo $HF_HUB_CACHE; echo $HF_DATASETS_CACHE"],
        env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.splitlines() == [str(disk / "hub"), str(root / "datasets")]


def test_a_mapped_file_and_a_download_under_way_are_left_alone(gradience, hub, disk, tmp_path):
    save_file({"w": np.ones((200, 200), np.float32)}, tmp_path / "w.safetensors")
    made = HubMaker(hub)
    snapshot = made.add("org/m", "a", {"w": (tmp_path / "w.safetensors").read_bytes()})
    with subprocess.Popen(
        [sys.executable, "-c", READER, snapshot / "w"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "open\n"
        done = gradience("cache", "move", hub, disk / "hub", "--yes")
        assert (done.returncode, f"process {reader.pid}" in done.stderr) == (5, True)
        assert "mapped" in done.stderr
        said, _ = reader.communicate("\n")
        assert float(said) == 40_000
    slow = Repo({"w.bin": b"w" * 8_000_000}, halting=frozenset({"w.bin"}))
    code = "from huggingface_hub import snapshot_download as d; print(d('org/slow'))"
    with serve(org__slow=slow) as server:
        quiet = {"HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}
        with subprocess.Popen(
            [sys.executable, "-c", code],
            env=environ_of(hub, HF_ENDPOINT=server.url, **quiet),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            assert server.halfway.wait(60)
            done = gradience("cache", "move", hub, disk / "hub", "--yes")
            assert (done.returncode, "in use" in done.stderr) == (5, True)
            server.go_on.set()
            said, _ = process.communicate(timeout=60)
    assert gradience("cache", "move", hub, disk / "hub", "--yes").returncode == 0
    assert (Path(said.strip()) / "w.bin").stat().st_size == 8_000_000


@pytest.mark.slow
def test_a_dataset_in_use_stays_and_after_the_move_it_is_loaded_without_a_build(
    gradience, disk, tmp_path
):
    (tmp_path / "d.jsonl").write_text("".join(f'{{"n": {n}}}\n' for n in range(1000)))
    cache = tmp_path / "hf" / "datasets"
    environ = environ_of(tmp_path / "hf" / "hub", HF_DATASETS_CACHE=str(cache))
    environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    for moved in (False, True):
        with subprocess.Popen(
            [sys.executable, "-c", DATASET, tmp_path / "d.jsonl"],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "499500\n"
            if not moved:
                done = gradience("cache", "move", cache, disk / "datasets", "--yes")
                assert (done.returncode, "in use" in done.stderr) == (5, True)
            said, _ = process.communicate("\n")
            assert said == "499500\n"
        if not moved:
            assert gradience("cache", "move", cache, disk / "datasets", "--yes").returncode == 0
            arrows = {p: p.stat().st_mtime_ns for p in (disk / "datasets").rglob("*.arrow")}
            assert arrows
    assert {p: p.stat().st_mtime_ns for p in (disk / "datasets").rglob("*.arrow")} == arrows
