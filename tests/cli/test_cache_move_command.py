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
from factories_moves import killed_at, planned
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


def merged(gradience, old: Path, new: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return gradience("cache", "merge", old, new, *words)


def test_the_real_client_has_everything_of_both_after_a_merge_from_either_name(
    gradience, tmp_path, disk
):
    served = {
        "org__mine": Repo({"w.bin": b"w" * 300_000, "config.json": b"{}"}),
        "org__both": Repo({"b.bin": b"b" * 200_000}),
        "org__theirs": Repo({"t.bin": b"t" * 100_000}),
    }
    old, new = tmp_path / "hf" / "hub", disk / "hub"
    code = "import sys\nfrom huggingface_hub import snapshot_download as d\n"
    code += "for name in sys.argv[1:]: print(d(name))"

    def client(hub: Path, *names: str, **environ: str) -> list[str]:
        return subprocess.run(
            [sys.executable, "-c", code, *names],
            env=environ_of(hub, HF_HUB_DISABLE_XET="1", NO_PROXY="127.0.0.1", **environ),
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()

    with serve(**served) as server:
        client(old, "org/mine", "org/both", HF_ENDPOINT=server.url)
        client(new, "org/theirs", "org/both", HF_ENDPOINT=server.url)
    done = merged(gradience, old, new, "--yes")
    assert done.returncode == 0, done.stderr
    for place in (old, new):
        names = ("org/mine", "org/both", "org/theirs")
        paths = client(place, *names, HF_HUB_OFFLINE="1")
        assert [sum(f.stat().st_size for f in Path(p).iterdir()) for p in paths] == [
            300_002,
            200_000,
            100_000,
        ]


def test_a_merge_is_planned_shown_applied_later_and_done_once(gradience, hub, disk, tmp_path):
    HubMaker(hub).add("org/m", "a", FILES)
    HubMaker(disk / "hub").add("org/n", "b", {"n": b"n" * 9000})
    shown = merged(gradience, hub, disk / "hub", "--dry-run", "--json")
    assert shown.returncode == 0, shown.stderr
    (item,) = json.loads(shown.stdout)["content"]["items"]
    assert "in 4 files are copied, 0 are there already" in item["reasons"][0]
    assert (hub.is_symlink(), top(disk)) == (False, ["hub"])
    assert merged(gradience, hub, disk / "hub", "--plan", "p.json").returncode == 0
    assert not hub.is_symlink()
    done = gradience("cache", "apply", tmp_path / "p.json", "--yes", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["content"]["freed"] >= 200_000
    assert hub.readlink() == disk / "hub"
    again = merged(gradience, hub, disk / "hub", "--yes")
    assert (again.returncode, "is a link to" in again.stderr) == (0, True)


def test_a_merge_into_a_link_goes_where_it_leads_and_a_parent_is_refused(
    gradience, hub, disk, tmp_path
):
    HubMaker(hub).add("org/m", "a", FILES)
    HubMaker(disk / "hub").add("org/n", "b", {"n": b"n" * 9000})
    (tmp_path / "link").symlink_to(disk / "hub")
    wrong = merged(gradience, hub, disk, "--yes")
    assert (wrong.returncode, "not look like a cache" in wrong.stderr) == (2, True)
    assert merged(gradience, hub, tmp_path / "link", "--yes").returncode == 0
    assert hub.readlink() == disk / "hub"


def test_only_caches_of_the_hub_are_merged(gradience, tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    for place in (old, new):
        (place / "hub" / "x").mkdir(parents=True)
        (place / "token").write_text("mine")
    done = merged(gradience, old, new, "--yes")
    assert (done.returncode, "does not look like a cache of the Hub" in done.stderr) == (2, True)
    assert (old / "token").exists()


@pytest.mark.parametrize("way", ["move", "merge"])
def test_the_root_directory_is_neither_moved_nor_a_new_place(gradience, hub, way):
    HubMaker(hub).add("org/m", "a", FILES)
    for places in ((hub, "/"), ("/", hub)):
        done = gradience("cache", way, *places, "--yes")
        assert (done.returncode, "one lies in the other" in done.stderr) == (2, True)
    assert hub.is_dir()


@pytest.mark.parametrize("step", ["brought", "swapped"])
def test_a_merge_that_was_cut_off_is_named_with_the_command_that_ends_it(
    gradience, hub, disk, step
):
    HubMaker(hub).add("org/m", "a", FILES)
    HubMaker(disk / "hub").add("org/n", "b", {"n": b"n" * 9000})
    assert killed_at(planned(hub, disk / "hub", merges=True), step)
    command = f"gradience cache merge {hub} {disk / 'hub'}"
    for words in (("ls",), ("clean", "--dry-run"), ("merge", hub, disk / "hub", "--dry-run")):
        done = gradience("cache", *words, HF_HUB_CACHE=str(disk / "hub"))
        assert done.returncode == 0, done.stderr
        assert f"is of an unfinished merge of {hub}\n" in done.stderr
        assert command in done.stderr
        assert "already" not in done.stderr


def test_a_move_whose_copy_has_its_place_is_named_by_a_dry_run_and_not_called_taken(
    gradience, hub, disk
):
    HubMaker(hub).add("org/m", "a", FILES)
    assert killed_at(planned(hub, disk / "hub"), "placed")
    done = gradience("cache", "move", hub, disk / "hub", "--dry-run")
    assert (done.returncode, f"an unfinished move of {hub}\n" in done.stderr) == (0, True)
    assert "not an empty directory" not in done.stderr
    refused = gradience("cache", "move", hub, disk / "hub", "--abandon", "--dry-run")
    assert (refused.returncode, (disk / "hub").is_dir()) == (2, True)
    assert "KB" in gradience("cache", "move", hub, disk / "hub", "--abandon").stderr
    assert (top(disk), top(hub.parent)) == ([], ["hub"])
