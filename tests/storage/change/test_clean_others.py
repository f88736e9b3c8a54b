"""Cleaning what is no hub cache: datasets, raw downloads, projects, compiled code."""

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from factories_caches import environ_of, generate
from factories_changes import carry_out, names_below, nobody
from gradience import system
from gradience.storage.change.choose import Rule
from gradience.storage.change.clean import plan_clean
from gradience.storage.change.protect import Facts
from gradience.storage.change.records import Plan
from gradience.storage.change.remote import unasked
from gradience.storage.inventory.take import survey
from gradience.system.holders import Holders

A, B = "a" * 64, "b" * 64  # as raw downloads are called
PLACES = {
    "datasets": "HF_DATASETS_CACHE",
    "dataset_downloads": "HF_DATASETS_DOWNLOADED_DATASETS_PATH",
    "inductor": "TORCHINDUCTOR_CACHE_DIR",
    "hf_home": "HF_HOME",
    "triton": "TRITON_CACHE_DIR",
    "pip": "PIP_CACHE_DIR",
    "uv": "UV_CACHE_DIR",
    "torch": "TORCH_HOME",
    "torch_extensions": "TORCH_EXTENSIONS_DIR",
    "wandb": "WANDB_CACHE_DIR",
    "conda": "CONDA_PKGS_DIRS",
    "assets": "HF_ASSETS_CACHE",
    "modules": "HF_MODULES_CACHE",
    "xet": "HF_XET_CACHE",
    "dataset_extracted": "HF_DATASETS_EXTRACTED_DATASETS_PATH",
    "gradience": "GRADIENCE_CACHE_DIR",
}
OWN = {
    # As these tools leave them: pip 26, uv 0.13, torch 2.13, triton 3.9, wandb 0.31, datasets 5.2.
    "pip": ("http-v2/a/1/0/f/b/a10fb", "wheels/0f/1a/b2/c3/x.whl", "selfcheck/a9f0"),
    "uv": ("archive-v0/x/six.py", "wheels-v8/pypi/six/x.msgpack", "simple-v28/pypi/six.rkyv"),
    "inductor": (
        "3g/c3g2mqobe6g24e.cpp",
        "fxgraph/2y/f2yofu7lcs3q/x",
        "aotautograd/a3hcolpare/vtto6ez",
        "locks/c3g2mqobe6g24e.lock",
        "triton/0/ABC/x.cubin",
    ),
    "triton": (f"{'A2' * 26}/kernel.cubin", f"{'f' * 64}/kernel.cubin"),
    "torch": ("hub/checkpoints/w.pth", "hub/pytorch_vision_main/hubconf.py", "kernels/k.so"),
    "torch_extensions": ("py311_cu126/fused/x.so", "fused/build.ninja"),
    "wandb": ("artifacts/obj/md5/ab/c", "artifacts/tmp/x", "logs/core-debug-20260101_000000.log"),
    "conda": ("numpy-2.0-py311_0/info/index.json", "cache/497deca9.json"),
    "assets": ("datasets/squad/default/x.zip",),
    "modules": ("transformers_modules/org/name/x.py", "datasets_modules/datasets/x/x.py"),
    "xet": ("https___cas-x/shard-cache/s.mdb", "https___cas-x/staging/s", "logs/xet_1.log"),
    "dataset_extracted": (f"{'c' * 64}/x.txt", "d" * 64),
    "datasets": ("org___rows/default/0.0.0/1a2b/rows-train.arrow",),
    "dataset_downloads": (A, f"{A}.json", f"{A}.{B}", f"{B}.py"),
    "gradience": ("base_norms/x.json", "audits/x.json", "doctor/answers/x.json"),
}
STRANGE = (
    "thesis/chapter.tex",
    "wheels-of-mine/x.whl",
    "de/notes.txt",
    "logs/2026/run.log",
    "hub/my-code/train.py",
    "undo/share-back.json",
)
"""What people keep in a directory that a variable names."""


def plan(
    root: Path,
    kind: str,
    rule: Rule,
    *,
    min_age: float = 0.0,
    force: bool = False,
    holders: Holders | None = None,
    not_ours: tuple[str, ...] = ("/",),
) -> Plan:
    projects: Sequence[Path] = [root] if kind == "project" else []
    environ = {PLACES[kind]: str(root)} if kind in PLACES else {}
    found = survey(
        environ=environ,
        home=root.parent / "home",
        now=datetime.now(UTC),
        kinds=[kind],
        projects=projects,
    )
    facts = Facts(
        holders=holders if holders is not None else nobody(),
        needed={},
        min_age=min_age,
        force=force,
        not_ours=not_ours,
    )
    return plan_clean(found, [rule], facts, change="test", free={}, ask=unasked)


def write(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x" * 5000)


def test_temporary_files_of_map_go_when_they_are_old_and_results_when_asked_for(tmp_path):
    build = "org___set/default/0.0.0/hash"
    root = tmp_path / "datasets"
    write(root, f"{build}/set-train.arrow", f"{build}/cache-1.arrow", f"{build}/tmpabcdefgh")
    assert plan(root, "datasets", Rule(), min_age=900).actions == ()
    old = time.time() - 3600
    os.utime(root / build / "tmpabcdefgh", (old, old))
    assert carry_out(plan(root, "datasets", Rule(), min_age=900)).complete
    left = {Path(name).name for name in names_below(root)}
    assert {"set-train.arrow", "cache-1.arrow"} <= left
    assert "tmpabcdefgh" not in left
    named = plan(root, "datasets", Rule(names=["org/set: *"]))
    assert [item.what for item in named.items] == ["map_results"]
    carry_out(named)
    assert {n for n in names_below(root) if n.endswith(".arrow")} == {f"{build}/set-train.arrow"}
    carry_out(plan(root, "datasets", Rule(names=["org/set"])))
    assert names_below(root) == set()


def test_a_raw_download_goes_with_its_note_under_its_lock(tmp_path):
    root = tmp_path / "downloads"
    write(root, A, B, f"{B}.incomplete")
    for name in (A, B):
        note = {"url": "https://example.org/x", "etag": None}
        (root / f"{name}.json").write_text(json.dumps(note))
    with (root / f"{B}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        receipt = carry_out(plan(root, "dataset_downloads", Rule(names=["example.org"])))
        assert not receipt.complete
        assert names_below(root) >= {B, f"{B}.json", f"{B}.incomplete"}
    assert A not in names_below(root)
    assert f"{A}.json" not in names_below(root)


def test_kernels_of_triton_go_and_its_directory_stays(tmp_path):
    root = tmp_path / "triton"
    write(root, f"{'A' * 52}/k.cubin", f"{'d' * 64}/k.cubin")
    found = plan(root, "triton", Rule(kinds=["triton"]))
    receipt = carry_out(found)
    assert receipt.complete
    assert receipt.freed >= 10_000
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("kind", ["inductor", "pip", "triton", "datasets", "hf_home"])
def test_a_cache_at_the_home_directory_or_above_loses_nothing(tmp_path, kind):
    write(tmp_path, "home/.ssh/id", "home/Documents/thesis.tex", "other/x")
    for root in (tmp_path / "home", tmp_path):
        found = plan(root, kind, Rule(kinds=[kind]), force=True, not_ours=(str(tmp_path / "home"),))
        assert found.actions == ()
        assert {kept.code for kept in found.kept} <= {"too_wide"}


def test_what_is_no_dataset_in_the_directory_of_datasets_stays(tmp_path):
    root = tmp_path / "scratch"
    write(
        root,
        "org___rows/default/0.0.0/1a2b/rows-train.arrow",
        "org___rows/default/0.0.0/1a2b_builder.lock",
        "org___rows/default-98ab/1.2.0/3c4d.incomplete/rows-train.arrow",
        "my-project/src/train.py",
        "prepared/train/data-00000-of-00001.arrow",  # save_to_disk
        "prepared/train/dataset_info.json",
        "results/notes.txt",
    )
    found = plan(root, "datasets", Rule(kinds=["datasets"]), force=True)
    assert {item.name for item in found.items if item.what == "dataset"} == {"org/rows"}
    carry_out(found)
    assert {p.name for p in root.iterdir()} == {"my-project", "prepared", "results"}


@pytest.mark.parametrize("kind", list(OWN))
def test_a_kind_takes_what_its_program_made_and_names_what_others_put_there(tmp_path, kind):
    root = tmp_path / "cache"
    own = OWN[kind]
    strange = [name for name in STRANGE if not any(o.startswith(name.split("/")[0]) for o in own)]
    write(root, *own, *strange)
    found = plan(root, kind, Rule(kinds=[kind]), force=True)
    carry_out(found)
    left = {n for n in names_below(root) if (root / n).is_file() and not n.endswith(".lock")}
    assert left == {*strange}
    named = {kept.name for kept in found.kept if kept.code == "foreign"}
    assert {name.split("/")[0] for name in strange} == {name.split("/")[0] for name in named}
    assert all("Not put there by" in kept.why for kept in found.kept if kept.code == "foreign")


@pytest.mark.parametrize("kind", ["pip", "wandb", "xet", "inductor", "torch", "conda"])
def test_a_plain_name_alone_does_not_make_a_directory_a_programs_own(tmp_path, kind):
    root = tmp_path / "cache"
    write(
        root,
        "wheels/mine-1.0-py3-none-any.whl",
        "http/notes.txt",
        "artifacts/paper/figure.pdf",
        "logs/2026/run.log",
        "site/staging/index.html",
        "de/wörter.txt",
        "fr/mots/x.txt",
        "book/info/about.txt",
        "hub/checkpoints-of-mine/x.pt",
    )
    before = names_below(root)
    assert plan(root, kind, Rule(kinds=[kind]), force=True).actions == ()
    assert names_below(root) == before


def test_the_login_is_never_removed(tmp_path):
    root = tmp_path / "hf"
    write(root, "token", "evaluate/x")
    for force in (False, True):
        found = plan(root, "hf_home", Rule(names=["*"]), force=force)
        assert found.actions == ()
    assert (root / "token").exists()


def checkpoint(root: Path, step: int) -> None:
    write(root, f"checkpoint-{step}/model.safetensors", f"checkpoint-{step}/optimizer.pt")
    (root / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")


def test_the_last_checkpoints_of_each_run_stay(tmp_path):
    root = tmp_path / "runs"
    for run in ("a", "b"):
        for step in (5, 10, 100):
            checkpoint(root / run, step)
    found = plan(root, "project", Rule(keep_last=2))
    assert {kept.code for kept in found.kept} == {"only_copy"}
    assert found.actions == ()
    found = plan(root, "project", Rule(kinds=["project"], keep_last=2))
    assert {item.name for item in found.items} == {"a/checkpoint-5", "b/checkpoint-5"}
    assert all(item.warnings for item in found.items)
    assert carry_out(found).complete
    assert {p.name for p in (root / "a").iterdir()} == {"checkpoint-10", "checkpoint-100"}


def test_optimizer_states_go_and_weights_stay(tmp_path):
    checkpoint(tmp_path / "runs", 5)
    found = plan(tmp_path / "runs", "project", Rule(kinds=["project"], names=["checkpoint-5: *"]))
    carry_out(found)
    assert {p.name for p in (tmp_path / "runs/checkpoint-5").iterdir()} == {
        "model.safetensors",
        "trainer_state.json",
    }


def test_a_local_dir_loses_what_was_downloaded_and_keeps_what_is_yours(tmp_path):
    root = tmp_path / "p"
    write(root, "model/w.bin", "model/changed.bin", "model/mine.txt")
    notes = root / "model" / ".cache" / "huggingface" / "download"
    notes.mkdir(parents=True)
    now = time.time()
    for name in ("w.bin", "changed.bin"):
        (notes / f"{name}.metadata").write_text(f"{'a' * 40}\netag\n{now}\n")
    os.utime(root / "model/changed.bin", (now + 60, now + 60))
    carry_out(plan(root, "project", Rule(kinds=["project"], names=["model"])))
    left = {name for name in names_below(root) if (root / name).is_file()}
    assert left == {"model/changed.bin", "model/mine.txt"}


LOAD = """
import sys
from datasets import load_dataset
found = load_dataset("json", data_files=sys.argv[1], cache_dir=sys.argv[2], split="train")
print(len(found), flush=True)
sys.stdin.readline()
print(sum(found["n"]), flush=True)
"""


@pytest.mark.slow
def test_a_dataset_that_a_process_has_loaded_is_kept(tmp_path):
    pytest.importorskip("datasets")
    (tmp_path / "rows.jsonl").write_text("".join(f'{{"n": {n}}}\n' for n in range(1000)))
    root = tmp_path / "datasets"
    environ: dict[str, Any] = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", LOAD, tmp_path / "rows.jsonl", root],
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "1000\n"
        everything = Rule(names=["*"], kinds=["datasets"])
        found = plan(root, "datasets", everything, force=True, holders=system.holders())
        assert {kept.code for kept in found.kept} == {"in_use"}
        carry_out(plan(root, "datasets", everything, force=True), holders=system.holders)
        said, _ = process.communicate("\n")
        assert int(said) == sum(range(1000))
    assert carry_out(plan(root, "datasets", everything, force=True)).complete


def test_the_synthetic_cache_is_emptied_of_everything_that_can_be_had_again(tmp_path):
    generate(tmp_path / "c", repos=6, files=8)
    found = survey(
        environ=environ_of(tmp_path / "c"), home=tmp_path / "home", now=datetime.now(UTC)
    )
    facts = Facts(holders=nobody(), needed={}, min_age=0.0, force=True)
    made = plan_clean(found, [Rule(names=["*"])], facts, change="all", free={}, ask=unasked)
    receipt = carry_out(made)
    assert receipt.complete, [o for o in receipt.outcomes if o.state != "done"]
    assert 0 < receipt.freed <= made.frees_bytes


def test_groups_of_raw_downloads_are_told_apart_although_they_share_a_directory(tmp_path):
    root = tmp_path / "downloads"
    write(root, A, B)
    for name, host in ((A, "one"), (B, "two")):
        note = {"url": f"https://{host}.example/x", "etag": None}
        (root / f"{name}.json").write_text(json.dumps(note))
    carry_out(plan(root, "dataset_downloads", Rule(names=["one.example"])))
    assert {n for n in names_below(root) if not n.endswith(".lock")} == {B, f"{B}.json"}
    carry_out(plan(root, "dataset_downloads", Rule(names=["*"])))
    assert {n for n in names_below(root) if not n.endswith(".lock")} == set()
