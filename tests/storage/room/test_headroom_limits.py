"""Limits of platforms: rules over an environment and a mount that are made up here."""

from pathlib import Path

import pytest

from gradience.errors import UsageError
from gradience.storage.room.known_limits import known_sizes, lies
from gradience.system import Mount

HOME = Path("/home/me")
GB = 10**9


def mount(path: str, **fields: object) -> Mount:
    return Mount(path=Path(path), **({"device": "/dev/x", "fs_type": "ext4"} | fields))


MOOSEFS = mount("/workspace", device="mfs#eu-1:9421", fs_type="fuse", network=True, fuse=True)


def sizes(place: str, at: Mount, environ: dict[str, str], given: int | None = None):
    return known_sizes(Path(place), at, environ, HOME, given)


def test_the_size_of_a_runpod_volume_comes_from_the_user():
    (known,) = sizes("/workspace/hf", MOOSEFS, {"GRADIENCE_VOLUME_SIZE": "100GB"})
    assert (known.size, known.counted) == (100 * GB, (Path("/workspace"),))


def test_an_argument_goes_before_the_variable():
    (known,) = sizes("/workspace", MOOSEFS, {"GRADIENCE_VOLUME_SIZE": "100GB"}, 50 * GB)
    assert known.size == 50 * GB


def test_the_variable_does_not_speak_of_the_containers_own_disk():
    assert sizes("/root", mount("/", fs_type="overlay"), {"GRADIENCE_VOLUME_SIZE": "100GB"}) == ()


def test_a_variable_that_is_no_size_is_named():
    with pytest.raises(UsageError, match="GRADIENCE_VOLUME_SIZE: 'plenty'"):
        sizes("/workspace", MOOSEFS, {"GRADIENCE_VOLUME_SIZE": "plenty"})


def test_a_volume_of_a_cluster_reports_what_is_not_ours():
    assert "cluster" in lies(Path("/workspace"), MOOSEFS, {})
    nfs = mount("/workspace", fs_type="nfs4", network=True)
    assert "cluster" in lies(Path("/workspace"), nfs, {"RUNPOD_POD_ID": "x"})
    assert lies(Path("/workspace"), nfs, {}) == ""
    assert lies(Path("/root"), mount("/"), {"RUNPOD_POD_ID": "x"}) == ""


def test_the_disk_of_wsl_is_a_file_that_may_not_grow():
    environ = {"WSL_DISTRO_NAME": "Ubuntu"}
    assert "Windows" in lies(Path("/home/me"), mount("/"), environ)
    assert lies(Path("/home/me"), mount("/"), {}) == ""


def test_kaggle_keeps_20_gb_of_its_working_directory_only():
    environ = {"KAGGLE_KERNEL_RUN_TYPE": "Interactive"}
    (known,) = sizes("/kaggle/working/run", mount("/"), environ)
    assert known.size == 20 * GB
    assert sizes("/kaggle/temp", mount("/"), environ) == ()
    assert sizes("/kaggle/working", mount("/"), {}) == ()


def test_a_space_has_50_gb_but_for_its_persistent_storage():
    environ = {"SPACE_ID": "me/demo"}
    (known,) = sizes("/home/user/app", mount("/", fs_type="overlay"), environ)
    assert known.size == 50 * GB
    assert sizes("/data/hub", mount("/data"), environ) == ()


def test_what_cannot_be_counted_has_nothing_counted():
    environ = {"PAPERSPACE_NOTEBOOK_REPO_ID": "r"}
    (known,) = sizes("/root", mount("/"), environ)
    assert (known.size, known.counted) == (8 * GB, ())
    assert "plan" in lies(Path("/storage/x"), mount("/storage"), environ)
