"""Verification: offline, exact about what is wrong, silent about what is only unusual."""

import hashlib
import json
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from factories_caches import NOW, HubMaker, check, commit_of, problems
from gradience.storage.verify.records import Unchecked, Verification
from gradience.storage.verify.report import page

WEIGHTS = save({"a": np.random.default_rng(0).standard_normal((64, 64), dtype=np.float32)})


@pytest.fixture(params=[False, True], ids=["repo blobs", "shared blobs"])
def hub(request, tmp_path):
    made = HubMaker(tmp_path / "hub", shared=request.param)
    made.add("org/a", "1", {"model.safetensors": WEIGHTS, "config.json": b"{}"})
    return made


def payload(hub: HubMaker) -> Path:
    """The file that holds the bytes of the weights."""
    link = hub.repo("org/a") / "snapshots" / commit_of("1") / "model.safetensors"
    return link.resolve()


def test_a_sound_cache_has_no_problem_and_every_file_was_hashed(hub):
    found = check(hub.hub, deep=True)
    assert problems(found) == []
    assert (found.files, found.by_size, found.by_hash) == (2, 2, 2)
    assert found.bytes_read == len(WEIGHTS) + 2


def test_without_deep_nothing_is_hashed(hub):
    found = check(hub.hub)
    assert (problems(found), found.by_hash, found.bytes_read) == ([], 0, 0)


def test_a_truncated_file_is_found_by_its_size(hub):
    os.truncate(payload(hub), 5000)
    (problem,) = check(hub.hub).problems
    assert problem.code == "wrong_size"
    assert problem.names == (f"{commit_of('1')[:12]}/model.safetensors",)
    assert str(len(WEIGHTS)) in problem.message


def test_a_truncated_file_without_a_listing_is_found_by_its_header(hub):
    for listing in (hub.repo("org/a") / "trees").iterdir():
        listing.unlink()
    os.truncate(payload(hub), 5000)
    assert problems(check(hub.hub)) == ["truncated"]
    os.truncate(payload(hub), 5)
    assert problems(check(hub.hub)) == ["truncated"]


@pytest.mark.parametrize("sparse", [True, False])
def test_a_file_of_zeros_is_found_without_hashing(hub, sparse):
    path = payload(hub)
    path.write_bytes(b"" if sparse else bytes(len(WEIGHTS)))
    os.truncate(path, len(WEIGHTS))
    assert problems(check(hub.hub)) == ["zero_filled"]


def test_a_header_before_zeros_is_found_by_its_hash_only(hub):
    path = payload(hub)
    data = bytearray(WEIGHTS)
    data[-8000:-4100] = bytes(3900)
    path.write_bytes(data)
    assert problems(check(hub.hub)) == []
    assert problems(check(hub.hub, deep=True)) == ["wrong_hash"]


def test_a_pointer_in_place_of_weights_is_named(hub):
    payload(hub).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert problems(check(hub.hub)) == ["lfs_pointer"]


def test_a_small_file_is_held_against_its_git_hash(tmp_path):
    hub = HubMaker(tmp_path / "hub")
    snapshot = hub.add("org/a", "1", {})
    digest = hashlib.sha1(b"blob 2\x00{}").hexdigest()
    blob = hub.repo("org/a") / "blobs" / digest
    blob.parent.mkdir(exist_ok=True)
    blob.write_bytes(b"{}")
    (snapshot / "config.json").symlink_to(f"../../blobs/{digest}")
    assert problems(check(hub.hub, deep=True)) == []
    blob.write_bytes(b"[]")
    assert problems(check(hub.hub, deep=True)) == ["wrong_hash"]


def test_a_missing_shard_is_named_and_a_partial_snapshot_is_no_problem(tmp_path):
    hub = HubMaker(tmp_path / "hub")
    index = json.dumps({"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}).encode()
    files = {"model.safetensors.index.json": index, "m-1.safetensors": WEIGHTS, "extra": b"x"}
    snapshot = hub.add("org/a", "1", files)
    (snapshot / "extra").unlink()
    found = check(hub.hub)
    assert problems(found) == ["missing_shard"]
    assert "m-2.safetensors" in found.problems[0].message
    assert found.partial == {str(snapshot): 1}


def test_a_file_that_should_hold_zeros_is_sound(tmp_path):
    hub = HubMaker(tmp_path / "hub")
    hub.add("org/a", "1", {"mask.bin": bytes(100_000)})
    assert problems(check(hub.hub)) == []


def test_an_index_that_was_downloaded_by_itself_is_no_problem(tmp_path):
    hub = HubMaker(tmp_path / "hub")
    index = json.dumps({"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}).encode()
    hub.add("org/a", "1", {"model.safetensors.index.json": index})
    assert problems(check(hub.hub)) == []


def test_a_link_to_a_lost_blob_is_a_problem(hub):
    payload(hub).unlink()
    assert "missing_blob" in problems(check(hub.hub))


def test_a_link_that_the_store_does_not_list_is_a_problem(tmp_path):
    hub = HubMaker(tmp_path / "hub", shared=True)
    hub.add("org/a", "1", {"w": b"x" * 100})
    (manifest,) = (hub.hub / "blobs").glob("*/*.refs")
    manifest.write_text("models--org--b/blobs/0\n")
    assert problems(check(hub.hub)) == ["unlisted_link"]


def test_only_the_repos_that_were_named_are_checked(hub):
    hub.add("us/b", "2", {"model.safetensors": WEIGHTS + b"x"})
    found = check(hub.hub, names=["us/*"])
    assert (found.files, problems(found)) == (1, ["truncated"])
    assert problems(check(hub.hub, names=["org/*"])) == []


def test_a_file_that_cannot_be_read_is_counted_not_blamed(tmp_path):
    hub = HubMaker(tmp_path / "hub")
    snapshot = hub.add("org/a", "1", {})
    odd = hub.repo("org/a") / "blobs" / "etag-of-no-known-kind"
    odd.parent.mkdir(exist_ok=True)
    odd.write_bytes(b"x")
    (snapshot / "w").symlink_to(f"../../blobs/{odd.name}")
    found = check(hub.hub, deep=True)
    assert (problems(found), found.unchecked_count) == ([], 1)


def test_a_listing_of_an_unknown_version_is_not_believed(hub):
    (listing,) = (hub.repo("org/a") / "trees").iterdir()
    content = json.loads(listing.read_text())
    listing.write_text(json.dumps(content | {"format_version": 2}))
    found = check(hub.hub)
    assert (problems(found), found.by_size) == ([], 0)
    listing.write_bytes(b"\xff{" * 1000)
    assert check(hub.hub).by_size == 0


def test_verifying_makes_nothing_look_used(hub):
    path = payload(hub)
    os.utime(path, (1e9, 2e9))
    check(hub.hub, deep=True)
    assert path.stat().st_atime == 1e9


def test_progress_reaches_the_end(hub):
    told: list[tuple[str, int, int]] = []
    lock = threading.Lock()

    def progress(stage: str, done: int, total: int) -> None:
        with lock:
            told.append((stage, done, total))

    check(hub.hub, deep=True, progress=progress)
    stage, done, total = told[-1]
    assert stage == "hashing (MB)"
    assert done == total


def test_a_local_dir_is_held_against_its_notes(tmp_path):
    root = tmp_path / "p" / "model"
    notes = root / ".cache" / "huggingface" / "download"
    notes.mkdir(parents=True)
    for name, data in (("w.safetensors", WEIGHTS), ("c.json", b"{}")):
        (root / name).write_bytes(data)
        (notes / f"{name}.metadata").write_text(
            f"{commit_of('1')}\n{hashlib.sha256(data).hexdigest()}\n{time.time() + 60}\n"
        )
    found = check(tmp_path / "hub", projects=[tmp_path / "p"], deep=True)
    assert (problems(found), found.by_hash) == ([], 2)
    (root / "c.json").write_bytes(b"[]")
    os.utime(root / "c.json", (NOW.timestamp() + 600,) * 2)
    os.truncate(root / "w.safetensors", 5000)
    assert problems(check(tmp_path / "hub", projects=[tmp_path / "p"])) == [
        "changed_locally",
        "truncated",
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_cannot_be_read_is_not_called_sound(hub):
    snapshots = hub.repo("org/a") / "snapshots"
    snapshots.chmod(0)
    try:
        found = check(hub.hub)
    finally:
        snapshots.chmod(0o755)
    assert (found.files, found.unchecked_count) == (0, 1)


def test_nothing_checked_is_no_good_news():
    refused = Unchecked(path="/hub/models--org--a", reason="permission denied")
    found = Verification(
        roots=("/hub",), files=0, by_size=0, by_hash=0, bytes_read=0, partial={}, problems=(),
        unchecked=(refused,), unchecked_count=1,
    )  # fmt: skip
    first, *_, last = page(found)
    assert (first.text, first.tone) == ("Nothing could be checked", "warn")
    assert "permission denied" in last.text


def test_no_cache_is_nothing_to_check(tmp_path):
    assert problems(check(tmp_path / "hub")) == []
