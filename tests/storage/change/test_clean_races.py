"""The real client, a real reader and a real `load_dataset` at work while caches are cleaned."""

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from factories_caches import HubMaker, commit_of
from factories_changes import carry_out, clean_plan
from factories_races import KINDS, racers, repo, round_of
from gradience import system
from hub_server import Repo, serve

READER = """
import sys
from safetensors import safe_open
with safe_open(sys.argv[1], framework="numpy") as weights:
    print("open", flush=True)
    sys.stdin.readline()
    print(float(weights.get_tensor("w").sum()), flush=True)
"""


@pytest.mark.slow
def test_what_real_libraries_use_is_never_broken_by_a_change(tmp_path):
    """A slice of `benchmarks/clean_stress.py`, which does thousands of rounds."""
    pytest.importorskip("datasets")
    chance = random.Random(0)
    with serve(org__m=repo()) as hub, racers(hub, tmp_path / "home") as everybody:
        for number, kind in enumerate(KINDS * 2):
            place, elsewhere = tmp_path / str(number), tmp_path / f"{number}-moved"
            elsewhere.mkdir()
            assert round_of(everybody, kind, place, elsewhere, chance).broken == ""


def test_a_mapped_safetensors_file_is_kept_until_its_reader_ends(tmp_path):
    save_file({"w": np.ones((200, 200), np.float32)}, tmp_path / "w.safetensors")
    hub = HubMaker(tmp_path / "hub")
    data = (tmp_path / "w.safetensors").read_bytes()
    snapshot = hub.add("org/m", "a", {"w.safetensors": data})
    plan = clean_plan(hub.hub, names=["org/m"])
    with subprocess.Popen(
        [sys.executable, "-c", READER, snapshot / "w.safetensors"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "open\n"
        (kept,) = clean_plan(hub.hub, names=["org/m"], holders=system.holders()).kept
        assert (kept.code, f"process {reader.pid} " in kept.why) == ("in_use", True)
        assert "mapped" in kept.why
        # A plan from before it was opened finds it all the same.
        receipt = carry_out(plan, holders=system.holders)
        assert receipt.outcomes[0].state == "skipped"
        assert (receipt.freed, (snapshot / "w.safetensors").exists()) == (0, True)
        said, _ = reader.communicate("\n")
        assert float(said) == 40_000
    assert carry_out(clean_plan(hub.hub, names=["org/m"])).complete


def test_a_download_halfway_is_left_alone(tmp_path):
    files = {"w.bin": b"w" * 8_000_000, "c.json": b"{}"}
    slow = Repo(files, halting=frozenset({"w.bin"}))
    code = "import sys; from huggingface_hub import snapshot_download as d; print(d('org/m'))"
    with serve(org__m=slow) as hub:
        environ = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
        environ |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1"}
        with subprocess.Popen(
            [sys.executable, "-c", code],
            env=environ | {"NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            assert hub.halfway.wait(60)
            # As greedy as can be: everything, however young, whatever speaks against it.
            plan = clean_plan(tmp_path / "hub", names=["*"], force=True, min_age=0.0)
            assert {kept.code for kept in plan.kept} == {"in_flight"}
            carry_out(plan, holders=system.holders)
            hub.go_on.set()
            said, _ = process.communicate(timeout=60)
    assert (Path(said.strip()) / "w.bin").read_bytes() == files["w.bin"]


@pytest.mark.parametrize("shared", [False, True], ids=["per_repo", "store"])
def test_after_a_clean_the_real_client_loads_every_kept_revision_offline(tmp_path, shared):
    hub = HubMaker(tmp_path / "hub", shared=shared)
    files = {"w.safetensors": b"w" * 9000, "sub/c.json": b"{}"}
    for name in ("org/a", "org/b"):
        for revision, ref in (("a", "main"), ("b", "v2"), ("c", None)):
            hub.add(name, revision, {**files, f"{revision}.bin": revision.encode() * 9}, ref=ref)
    assert carry_out(clean_plan(hub.hub, revisions=["bbbb"])).complete
    code = (
        "import sys; from pathlib import Path; from huggingface_hub import snapshot_download as d\n"
        "for name in ('org/a', 'org/b'):\n"
        "    for revision in ('main', sys.argv[1]):\n"
        "        found = Path(d(name, revision=revision, local_files_only=True))\n"
        "        print(sum(len(f.read_bytes()) for f in found.rglob('*') if f.is_file()))\n"
        "from huggingface_hub import scan_cache_dir\n"
        "print(len(scan_cache_dir().warnings))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, commit_of("c")],
        env=os.environ | {"HF_HUB_CACHE": str(hub.hub), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [str(9000 + 2 + 9)] * 4 + ["0"]
