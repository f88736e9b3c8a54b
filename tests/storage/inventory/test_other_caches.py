"""datasets, torch, W&B, projects: what is listed, under which name, with which damage."""

import hashlib
import json
import os
from pathlib import Path

from factories_caches import NOW, cache_of, codes, du, entry_of, inventory_of, look_at
from gradience.storage.inventory.caches import CACHES
from gradience.storage.inventory.places import places
from gradience.storage.inventory.records import Cache

BIG = 100_000


def write(path: Path, size: int = BIG) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    return path


def cache_at(kind: str, variable: str, root: Path) -> Cache:
    return cache_of(inventory_of({variable: str(root)}, root.parent / "home", kinds=[kind]), kind)


# --- datasets ------------------------------------------------------------------------------------


def test_a_dataset_lists_its_builds_and_their_map_results(tmp_path):
    build = tmp_path / "ds" / "org___set" / "default" / "0.0.0" / ("a" * 64)
    write(build / "set-train.arrow")
    write(build / "cache-0123456789abcdef.arrow", 2 * BIG)
    write(build / "tmpab12cd_9")
    write(build.with_name(build.name + ".incomplete") / "set-train.arrow")
    write(build.with_name(build.name + "_builder.lock"), 0)
    entry = entry_of(cache_at("datasets", "HF_DATASETS_CACHE", tmp_path / "ds"), "org/set")
    assert (entry.what, entry.recoverable) == ("dataset", "rebuild")
    assert codes(entry) == ["incomplete", "temporary"]
    assert entry.physical_bytes == du(tmp_path / "ds" / "org___set")
    whole = next(part for part in entry.parts if part.parts)
    assert whole.name == f"default/0.0.0/{'a' * 64}"
    (results,) = whole.parts
    assert (results.what, results.belongs_to) == ("map_results", "org/set")
    assert results.frees_bytes == du(build / "cache-0123456789abcdef.arrow")


def test_downloads_name_the_dataset_or_the_host_they_came_from(tmp_path):
    downloads = tmp_path / "ds" / "downloads"
    for url in (
        "https://huggingface.co/datasets/org/set/resolve/main/a.zip",
        "hf://datasets/org/set@abc/b.zip",
        "https://example.org/c.zip",
    ):
        name = hashlib.sha256(url.encode()).hexdigest()
        write(downloads / name)
        (downloads / f"{name}.json").write_text(json.dumps({"url": url, "etag": None}))
        (downloads / f"{name}.lock").touch()
    write(downloads / ("f" * 64))
    write(downloads / f"{'e' * 64}.incomplete")
    cache = cache_at("dataset_downloads", "HF_DATASETS_CACHE", tmp_path / "ds")
    found = {entry.name: entry for entry in cache.entries}
    assert found["org/set"].files == 6
    assert found["org/set"].belongs_to == "org/set"
    assert found["example.org"].belongs_to == ""
    assert codes(found["unknown origin"]) == ["incomplete"]
    assert sum(e.physical_bytes for e in cache.entries) == du(downloads)


def test_an_unpacked_archive_names_the_dataset_it_is_of(tmp_path):
    downloads = tmp_path / "ds" / "downloads"
    url = "https://huggingface.co/datasets/org/set/resolve/main/a.zip"
    archive = write(downloads / hashlib.sha256(url.encode()).hexdigest())
    archive.with_name(f"{archive.name}.json").write_text(json.dumps({"url": url}))
    out = downloads / "extracted"
    write(out / hashlib.sha256(str(archive).encode()).hexdigest() / "a.txt")
    write(out / ("9" * 64))
    environ = {"HF_DATASETS_CACHE": str(tmp_path / "ds")}
    cache = cache_of(inventory_of(environ, tmp_path / "home"), "dataset_extracted")
    assert {e.belongs_to for e in cache.entries if e.what == "unpacked"} == {"org/set", ""}
    assert sum(e.physical_bytes for e in cache.entries) == du(out)


# --- torch, W&B, xet, packages -------------------------------------------------------------------


def test_torch_lists_weights_and_code(tmp_path):
    root = tmp_path / "torch"
    weights = write(root / "hub" / "checkpoints" / "resnet18-f37072fd.pth")
    write(root / "hub" / "pytorch_vision_main" / "hubconf.py", 10)
    write(root / "kernels" / "k")
    cache = cache_at("torch", "TORCH_HOME", root)
    found = {entry.name: entry for entry in cache.entries}
    assert found["resnet18-f37072fd.pth"].frees_bytes == du(weights)
    assert found["pytorch_vision_main"].what == "repo"
    assert found["kernels"].recoverable == "rebuild"
    assert sum(e.physical_bytes for e in cache.entries) == du(root)


def test_a_run_that_was_never_uploaded_is_an_only_copy(tmp_path):
    write(tmp_path / "wandb" / "offline-run-20260101_000000-abc" / "run.wandb")
    write(tmp_path / "wandb" / "run-20260101_000000-def" / "run.wandb")
    cache = cache_at("wandb_runs", "WANDB_DIR", tmp_path)
    found = {entry.name: entry.recoverable for entry in cache.entries if entry.what == "run"}
    assert found == {
        "offline-run-20260101_000000-abc": "lost",
        "run-20260101_000000-def": "unknown",
    }


def test_packages_that_environments_link_to_free_nothing(tmp_path):
    package = write(tmp_path / "uv" / "archive-v0" / "x" / "lib.so")
    (tmp_path / "venv").mkdir()
    os.link(package, tmp_path / "venv" / "lib.so")
    cache = cache_at("uv", "UV_CACHE_DIR", tmp_path / "uv")
    assert cache.shared_bytes == du(package)
    assert entry_of(cache, "archive-v0").frees_bytes < BIG


def test_conda_may_keep_packages_in_several_places(tmp_path):
    found = places({"CONDA_PKGS_DIRS": "~/a,/b/pkgs"}, Path("/home/me"))
    assert [str(p.path) for p in found if p.kind == "conda"] == ["/home/me/a", "/b/pkgs"]
    found = places({"CONDA_EXE": "/opt/conda/bin/conda"}, Path("/home/me"))
    assert [str(p.path) for p in found if p.kind == "conda"] == [
        "/opt/conda/pkgs",
        "/home/me/.conda/pkgs",
    ]


# --- projects ------------------------------------------------------------------------------------


def test_a_checkpoint_lists_what_only_a_resume_needs(tmp_path):
    checkpoint = tmp_path / "p" / "runs" / "a" / "checkpoint-500"
    write(checkpoint / "adapter_model.safetensors")
    optimizer = write(checkpoint / "optimizer.pt", 2 * BIG)
    write(checkpoint / "rng_state_0.pth", 10)
    (checkpoint / "trainer_state.json").write_text("{}")
    entry = look_up(tmp_path / "p", "runs/a/checkpoint-500")
    assert (entry.what, entry.recoverable, codes(entry)) == ("checkpoint", "lost", [])
    (state,) = entry.parts
    assert state.frees_bytes == du(optimizer, checkpoint / "rng_state_0.pth")
    assert entry.physical_bytes == du(checkpoint)


def test_a_checkpoint_whose_save_was_cut_off_is_broken(tmp_path):
    write(tmp_path / "p" / "checkpoint-4" / "model.safetensors", 0)
    assert codes(look_up(tmp_path / "p", "checkpoint-4")) == ["broken_checkpoint", "truncated"]


def test_a_directory_named_like_a_checkpoint_is_not_one_without_its_files(tmp_path):
    write(tmp_path / "p" / "checkpoint-9" / "notes.txt")
    assert CACHES["project"].entries(look_at(tmp_path / "p", "project"))[0] == []


def test_a_local_dir_counts_only_what_was_downloaded(tmp_path):
    root = tmp_path / "p" / "model"
    write(root / "sub" / "w.safetensors")
    write(root / "mine.txt")
    notes = root / ".cache" / "huggingface" / "download"
    (notes / "sub").mkdir(parents=True)
    note = f"{'1' * 40}\n{'2' * 64}\n{NOW.timestamp()}\n"
    (notes / "sub" / "w.safetensors.metadata").write_text(note)
    (notes / "gone.txt.metadata").write_text(note)
    write(notes / "abc.def.incomplete", 10)
    entry = look_up(tmp_path / "p", "model")
    assert entry.revision == "1" * 40
    assert codes(entry) == ["incomplete"]
    cache = root / ".cache" / "huggingface"
    assert entry.frees_bytes == du(root / "sub" / "w.safetensors", cache)


def look_up(project: Path, name: str):
    found = inventory_of({}, project.parent / "home", projects=[project], kinds=["project"])
    return entry_of(cache_of(found, "project"), name)
