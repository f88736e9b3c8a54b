"""What a new place would leave behind is found, measured, and moved without a loss."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from factories_disks import second_disk
from gradience.storage.environment.explain import move_notes
from gradience.storage.environment.left_behind import left_behind
from gradience.storage.environment.readers import resolve


def fill(directory: Path, *, size: int = 100_000) -> Path:
    directory.mkdir(parents=True)
    (directory / "blob").write_bytes(os.urandom(size))
    (directory / "link").symlink_to("blob")
    return directory


def moved(home: Path, old: dict[str, str], new: dict[str, str]):
    return left_behind(resolve(old, home), resolve({**old, **new}, home))


def test_caches_with_content_are_named_once_with_their_physical_size(tmp_path: Path) -> None:
    hub = fill(tmp_path / ".cache" / "huggingface" / "hub")
    os.link(hub / "blob", hub / "again")
    (tmp_path / ".cache" / "torch").mkdir()
    (found,) = moved(tmp_path, {}, {"HF_HOME": str(tmp_path / "new"), "TORCH_HOME": "/elsewhere"})
    assert found.places == ("hub",)
    assert (found.old, found.new) == (hub, tmp_path / "new" / "hub")
    assert found.bytes == (hub / "blob").stat().st_blocks * 512


def test_a_place_that_only_has_another_name_is_not_left_behind(tmp_path: Path) -> None:
    fill(tmp_path / "disk" / "hub")
    (tmp_path / "link").symlink_to("disk")
    old = {"HF_HUB_CACHE": str(tmp_path / "link" / "hub")}
    assert moved(tmp_path, old, {"HF_HUB_CACHE": str(tmp_path / "disk" / "hub")}) == ()


def test_nothing_is_said_where_nothing_moves(tmp_path: Path) -> None:
    fill(tmp_path / ".cache" / "huggingface" / "hub")
    assert moved(tmp_path, {}, {}) == ()


def test_a_directory_below_a_moved_one_travels_with_it(tmp_path: Path) -> None:
    fill(tmp_path / ".cache" / "huggingface" / "datasets")
    fill(tmp_path / ".cache" / "huggingface" / "datasets" / "downloads")
    (found,) = moved(tmp_path, {}, {"HF_HOME": str(tmp_path / "new")})
    assert found.places == ("datasets",)


def test_a_place_inside_the_other_gets_no_command(tmp_path: Path) -> None:
    fill(tmp_path / "hf" / "hub")
    old = {"HF_HUB_CACHE": str(tmp_path / "hf" / "hub")}
    new = {"HF_HUB_CACHE": str(tmp_path / "hf" / "hub" / "deeper")}
    (found,) = moved(tmp_path, old, new)
    assert found.commands == ()


def run(commands: tuple[str, ...]) -> int:
    """Give the command as a user would, and agree."""
    (command,) = commands
    return subprocess.run(
        ["sh", "-c", f"{command} --yes"],
        capture_output=True,
        check=False,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    ).returncode


def test_where_the_new_place_has_content_a_hub_is_merged_and_others_are_left(
    tmp_path: Path,
) -> None:
    old, new = fill(tmp_path / "old"), tmp_path / "new"
    (old / "models--o--m").mkdir()
    (new / "models--o--n").mkdir(parents=True)
    (found,) = moved(tmp_path, {"TORCH_HOME": str(old)}, {"TORCH_HOME": str(new)})
    assert (found.commands, "content of its own" in found.by_hand) == ((), True)
    (found,) = moved(tmp_path, {"HF_HUB_CACHE": str(old)}, {"HF_HUB_CACHE": str(new)})
    assert run(found.commands) == 0
    assert old.readlink() == new
    assert {path.name for path in new.iterdir()} == {"blob", "link", "models--o--m", "models--o--n"}


def test_the_command_for_one_disk_moves_and_never_over_content(tmp_path: Path) -> None:
    old, new = fill(tmp_path / "it's old"), tmp_path / "new $disk" / "hub"
    environ = {"HF_HUB_CACHE": str(old)}
    before, after = resolve(environ, tmp_path), dict(resolve(environ, tmp_path))
    after["hub"] = replace(before["hub"], path=new)
    (found,) = left_behind(before, after)
    fill(new)
    assert run(found.commands) != 0
    assert (old / "blob").exists()
    shutil.rmtree(new)
    assert run(found.commands) == 0
    assert old.readlink() == new
    assert (new / "link").is_symlink()


@pytest.fixture
def other_disk(tmp_path: Path):
    with second_disk(tmp_path) as directory:
        yield directory


def test_the_command_for_two_disks_copies_compares_and_then_removes(
    tmp_path: Path, other_disk: Path
) -> None:
    old = fill(tmp_path / "it's old")
    content = (old / "blob").read_bytes()
    new = other_disk / "new disk"
    environ = {"HF_HUB_CACHE": str(old)}
    (found,) = moved(tmp_path, environ, {"HF_HUB_CACHE": str(new)})
    assert run(found.commands) == 0
    assert old.readlink() == new
    assert (new / "blob").read_bytes() == content
    assert (new / "link").readlink() == Path("blob")


@pytest.mark.root
def test_a_full_disk_half_way_loses_nothing(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        old = fill(tmp_path / "old", size=2_000_000)
        environ = {"HF_HUB_CACHE": str(old)}
        (found,) = moved(tmp_path, environ, {"HF_HUB_CACHE": str(small / "hub")})
        (small / "another").write_bytes(bytes(3_000_000))
        (too_late,) = moved(tmp_path, environ, {"HF_HUB_CACHE": str(small / "hub")})
        assert (too_late.commands, too_late.missing_bytes > 500_000) == ((), True)
        assert "does not fit" in "".join(move_notes((too_late,)))
        content = (old / "blob").read_bytes()
        assert run(found.commands) != 0
        assert (old / "blob").read_bytes() == content
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_move_never_sweeps_up_what_the_new_environment_uses(tmp_path):
    """The directory of Gradience's own caches is the root of the whole local layout."""
    root = tmp_path / ".cache" / "gradience"
    local = {
        "HF_HOME": str(root / "hf_home"),
        "HF_HUB_CACHE": str(root / "hub"),
        "HF_DATASETS_CACHE": str(root / "datasets"),
        "TORCH_HOME": str(root / "torch"),
        "GRADIENCE_CACHE_DIR": str(root),
        "TRITON_CACHE_DIR": str(root / "triton"),
    }
    volume = tmp_path / "volume"
    new = {
        **local,
        "HF_HOME": str(volume / "hf_cache" / "hf_home"),
        "HF_HUB_CACHE": str(volume / "hf_cache" / "hub"),
        "HF_DATASETS_CACHE": str(volume / "hf_cache" / "datasets"),
        "TORCH_HOME": str(volume / "torch_cache"),
        "GRADIENCE_CACHE_DIR": str(volume / "gradience_cache"),
    }
    for part in ("hub", "triton", "base_norms"):
        (root / part).mkdir(parents=True)
        (root / part / "file").write_bytes(b"x" * 5000)
    found = left_behind(resolve(local, tmp_path), resolve(new, tmp_path))
    assert [item.old for item in found] == [root / "hub"]
    for item in found:
        assert run(item.commands) == 0
    assert (root / "triton" / "file").exists()
    assert (root / "base_norms" / "file").exists()
    assert (volume / "hf_cache" / "hub" / "file").exists()


def test_a_directory_that_holds_a_place_in_use_is_named_without_a_command(tmp_path):
    old = tmp_path / "hub"
    (old / "torch").mkdir(parents=True)
    (old / "file").write_bytes(b"x" * 5000)
    before = {"HF_HUB_CACHE": str(old), "TORCH_HOME": str(old / "torch")}
    after = {"HF_HUB_CACHE": str(tmp_path / "new"), "TORCH_HOME": str(old / "torch")}
    (item,) = left_behind(resolve(before, tmp_path), resolve(after, tmp_path))
    assert item.bytes > 0
    assert item.commands == ()
