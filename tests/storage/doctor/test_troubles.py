"""Each of the four troubles is made for real, found by name, and mended by the command given."""

import contextlib
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from factories_caches import HubMaker
from factories_disks import as_nobody, btrfs_with_quota, need, tmpfs
from factories_moves import content, sound, two_hubs
from gradience.storage.doctor.finding_kinds import Trouble
from gradience.storage.doctor.rules_places import ENOUGH_BYTES
from hub_server import Repo, serve

HUB = ("--library", "huggingface_hub")


class Patient:
    """A user with a home of their own, who asks the doctor and does what it says."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.work = home / "work"
        self.work.mkdir(parents=True)
        kept = ("PATH", "LANG", "PYTHONPATH", "LD_LIBRARY_PATH")
        self.environ = {k: os.environ[k] for k in kept if k in os.environ}
        # First on the path: the Python of the program is that of the tests.
        self.environ["PATH"] = f"{Path(sys.executable).parent}:{self.environ['PATH']}"
        self.environ["HOME"] = str(home)

    def asks(self, *arguments: str, before: str = "true") -> dict[str, Any]:
        """The diagnosis, after running `before` in the same shell and agreeing to what it asks."""
        command = [sys.executable, "-m", "gradience", "doctor", "--json", *arguments]
        done = self.runs(f'exec 3>&1 1>&2\n{before}\nexec 1>&3 3>&-\n"$@"', *command)
        assert done.returncode in {0, 1}, done.stderr
        content: dict[str, Any] = json.loads(done.stdout)["content"]
        return content

    def runs(self, script: str, *words: str) -> "subprocess.CompletedProcess[str]":
        master, terminal = os.openpty()
        os.write(master, b"y\n" * 20)
        try:
            return subprocess.run(
                ["bash", "-c", script, "bash", *words],
                env=self.environ,
                cwd=self.work,
                stdin=terminal,
                capture_output=True,
                text=True,
                check=False,
            )
        finally:
            os.close(master)
            os.close(terminal)


@pytest.fixture
def patient(tmp_path: Path) -> Patient:
    return Patient(tmp_path / "home")


def the(diagnosis: Mapping[str, Any], code: str) -> dict[str, str]:
    [finding] = [f for f in diagnosis["findings"] if f["code"] == code]
    return finding


def codes(diagnosis: Mapping[str, Any]) -> set[str]:
    """Codes of the findings; the disk that the tests run on may be nearly full itself."""
    return {f["code"] for f in diagnosis["findings"]} - {"space_low", "quota_low", "inodes_low"}


def grave(diagnosis: Mapping[str, Any]) -> list[dict[str, str]]:
    kept = codes(diagnosis)
    return [f for f in diagnosis["findings"] if f["severity"] != "info" and f["code"] in kept]


def need_room_to_move(place: Path) -> None:
    if shutil.disk_usage(place).free < 2 * ENOUGH_BYTES:
        pytest.skip("no disk with room to move to")


def test_a_healthy_machine_has_no_warnings(patient: Patient) -> None:
    if shutil.disk_usage(patient.home).free < 2 * ENOUGH_BYTES:
        pytest.skip("this machine's disk is nearly full")
    diagnosis = patient.asks(*HUB)
    assert diagnosis["findings"] == []
    assert diagnosis["places"][0]["path"] == str(patient.home / ".cache/huggingface/hub")


@pytest.mark.root
def test_no_space_left_is_found_and_mended(patient: Patient, tmp_path: Path) -> None:
    need_room_to_move(tmp_path)
    with tmpfs(tmp_path / "small", "size=2m") as small:
        patient.environ["HF_HOME"] = str(small / "hf")
        with pytest.raises(OSError, match="No space left on device"):
            (small / "filler").write_bytes(bytes(4 << 20))
        diagnosis = patient.asks(*HUB)
        finding = the(diagnosis, "space_low")
        assert finding["severity"] == "error"
        assert finding["trouble"] == Trouble.SPACE
        assert "cache_in_memory" in codes(diagnosis)
        after = patient.asks(*HUB, before=finding["remedy"])
        assert "space_low" not in {f["code"] for f in after["findings"]}
        assert grave(after) == []


@pytest.mark.root
def test_a_disk_that_is_too_small_is_not_mended_by_cleaning_others(
    patient: Patient, tmp_path: Path
) -> None:
    with serve(o__m=Repo({"config.json": b"{}", "model.bin": b"1"})) as hub:
        download(patient, hub.url, patient.home / ".cache/huggingface/hub")
    with tmpfs(tmp_path / "small", "size=210m") as small:
        (patient.work / "train.py").write_text(
            f"import huggingface_hub as h\nh.snapshot_download('o/m', cache_dir='{small}/c')\n"
        )
        finding = next(
            f
            for f in patient.asks(*HUB, "--", "python", "train.py")["findings"]
            if f["code"] == "space_low" and str(small) in f["message"]
        )
    assert finding["remedy"].startswith("# a disk of 220 MB is too small: name a directory on ")
    assert "cache_dir in line 2 of " in finding["remedy"]


@pytest.mark.root
@pytest.mark.parametrize("used", [False, True])
def test_what_lies_on_a_full_disk_can_be_taken_along(
    patient: Patient, tmp_path: Path, used: bool
) -> None:
    need_room_to_move(tmp_path)
    with tmpfs(tmp_path / "small", "size=2m") as small:
        patient.environ["HF_HOME"] = str(small / "hf")
        with serve(o__m=Repo({"config.json": b"{}", "model.bin": b"w" * 9000})) as hub:
            download(patient, hub.url, small / "hf/hub")
        with pytest.raises(OSError, match="No space left on device"):
            (small / "filler").write_bytes(bytes(4 << 20))
        finding = the(patient.asks(*HUB), "space_low")
        home = re.search(r"export HF_HOME=(\S+)", finding["remedy"])
        assert home is not None
        if used:
            HubMaker(Path(home[1]) / "hub").add("o/n", "a", {"n.bin": b"n"})
        after = patient.asks(*HUB, before=finding["remedy"])
        place = next(p for p in after["places"] if p["purpose"] == "models and files")
        repos = {p.parents[2].name for p in Path(place["path"]).glob("*/snapshots/*/*")}
        assert repos == {"models--o--m", "models--o--n"} if used else {"models--o--m"}
        assert after["findings"] == []


def hidden_quota(where: Path) -> "contextlib.AbstractContextManager[Path]":
    need("mkfs.btrfs", "btrfs")
    return btrfs_with_quota(where, 20_000_000)


HOLDS_A_CACHE = {
    "cache_in_memory": lambda p: tmpfs(p, "size=50m"),
    "cache_on_small_disk": hidden_quota,
}


@pytest.mark.root
@pytest.mark.parametrize("code", list(HOLDS_A_CACHE))
def test_a_cache_on_the_wrong_disk_is_moved_with_what_is_in_it(
    patient: Patient, tmp_path: Path, code: str
) -> None:
    need_room_to_move(tmp_path)
    with HOLDS_A_CACHE[code](tmp_path / "disk") as disk:
        patient.environ["HF_HOME"] = str(disk / "hf")
        with serve(o__m=Repo({"config.json": b"{}", "model.bin": b"w" * 9000})) as hub:
            download(patient, hub.url, disk / "hf/hub")
        after = patient.asks(*HUB, before=the(patient.asks(*HUB), code)["remedy"])
        place = next(p for p in after["places"] if p["purpose"] == "models and files")
        assert not Path(place["path"]).resolve().is_relative_to(disk)
        assert list(Path(place["path"]).glob("models--o--m/snapshots/*/config.json"))
        assert after["findings"] == []


@pytest.mark.root
def test_temporary_files_in_memory_are_put_on_a_disk(patient: Patient, tmp_path: Path) -> None:
    with tmpfs(tmp_path / "ram", "size=50m") as ram:
        patient.environ["TMPDIR"] = str(ram)
        asks = (*HUB, "--library", "python")
        finding = the(patient.asks(*asks), "temporary_in_memory")
        after = patient.asks(*asks, before=finding["remedy"])
    assert codes(after) == set()
    place = next(p for p in after["places"] if p["purpose"] == "temporary files")
    assert not Path(place["path"]).is_relative_to(ram)


def test_a_place_for_temporary_files_that_is_not_there_is_made(patient: Patient) -> None:
    patient.environ["TMPDIR"] = str(patient.home / "gone")
    asks = (*HUB, "--library", "python")
    finding = the(patient.asks(*asks), "temporary_missing")
    assert "temporary_missing" not in codes(patient.asks(*asks, before=finding["remedy"]))
    assert (patient.home / "gone").is_dir()


SMALL_DISKS = {
    "quota_low": (hidden_quota, "HF_HOME", "huggingface_hub"),
    "inodes_low": (lambda p: tmpfs(p, "size=50m,nr_inodes=100"), "HF_HOME", "huggingface_hub"),
    "directory_unwritable": (lambda p: tmpfs(p, "size=50m,ro"), "HF_HOME", "huggingface_hub"),
    "no_exec": (lambda p: tmpfs(p, "size=50m,noexec"), "TORCHINDUCTOR_CACHE_DIR", "torch"),
}


@pytest.mark.root
@pytest.mark.parametrize("code", list(SMALL_DISKS))
def test_a_disk_that_refuses_is_found_and_mended(
    patient: Patient, tmp_path: Path, code: str
) -> None:
    need_room_to_move(tmp_path)
    disk, variable, library = SMALL_DISKS[code]
    with disk(tmp_path / "disk") as path:
        patient.environ[variable] = str(path / "cache")
        finding = the(patient.asks("--library", library), code)
        assert finding["severity"] == "error"
        after = patient.asks("--library", library, before=finding["remedy"])
    assert [f for f in after["findings"] if f["severity"] != "info"] == []


@pytest.fixture
def foreign_cache(tmp_path: Path) -> Path:
    """A cache of root's, in a home that user 65534 can reach."""
    base = tmp_path / "shared"
    cache = base / "hf" / "hub" / "models--o--m"
    cache.mkdir(parents=True)
    for parent in [base, *base.parents]:
        if parent.stat().st_uid == os.geteuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    return base / "hf"


@pytest.mark.root
def test_permission_denied_is_found_and_mended(foreign_cache: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("acts as another user, which needs root")
    before = json.loads(as_nobody(LOOK_AS_NOBODY, foreign_cache))
    finding = the(before, "directory_unwritable")
    assert finding["severity"] == "error"
    assert finding["trouble"] == Trouble.PERMISSION
    assert str(foreign_cache / "hub") in finding["message"]
    # Root needs no sudo; a user does.
    command = finding["remedy"].removeprefix("sudo ")
    subprocess.run(["bash", "-c", command], check=True, capture_output=True)
    after = json.loads(as_nobody(LOOK_AS_NOBODY, foreign_cache))
    assert [f for f in after["findings"] if f["trouble"] == Trouble.PERMISSION] == []


@pytest.mark.root
def test_a_repo_left_by_sudo_in_ones_own_cache_is_found_and_given_back(
    foreign_cache: Path,
) -> None:
    if os.geteuid() != 0:
        pytest.skip("acts as another user, which needs root")
    for path in (foreign_cache, foreign_cache / "hub"):
        os.chown(path, 65534, 65534)
    finding = the(json.loads(as_nobody(LOOK_AS_NOBODY, foreign_cache)), "foreign_owner")
    assert finding["trouble"] == Trouble.PERMISSION
    assert "models--o--m" in finding["message"]
    assert "root" in finding["message"]
    command = finding["remedy"].removeprefix("sudo ")
    subprocess.run(["bash", "-c", command], check=True, capture_output=True)
    after = json.loads(as_nobody(LOOK_AS_NOBODY, foreign_cache))
    assert [f for f in after["findings"] if f["trouble"] == Trouble.PERMISSION] == []


@pytest.mark.root
def test_broken_weights_of_another_user_are_not_for_this_one_to_delete(
    foreign_cache: Path,
) -> None:
    if os.geteuid() != 0:
        pytest.skip("acts as another user, which needs root")
    repo = foreign_cache / "hub/models--o--m"
    commit = "c0ffee" + "0" * 34
    for folder in ("blobs", f"snapshots/{commit}", "refs"):
        (repo / folder).mkdir(parents=True)
    (repo / "refs/main").write_text(commit)
    (repo / "blobs" / ("a" * 64)).write_bytes(bytes(50_000))
    (repo / f"snapshots/{commit}/model.bin").symlink_to(f"../../blobs/{'a' * 64}")
    finding = the(json.loads(as_nobody(LOOK_AS_NOBODY, foreign_cache)), "broken_weights")
    assert finding["remedy"] == (
        "gradience cache verify o/m  # root owns them, and must delete them"
    )


@pytest.mark.root
def test_a_cache_that_a_group_cannot_share_is_found_and_opened(foreign_cache: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("acts as another user, which needs root")
    hub = foreign_cache / "hub"
    for path in (foreign_cache, hub, hub / "models--o--m"):
        os.chown(path, 65534, 65534)
    hub.chmod(0o2775)
    (hub / "models--o--m").chmod(0o700)
    diagnosis = json.loads(as_nobody(LOOK_AS_NOBODY, foreign_cache))
    finding = the(diagnosis, "group_sharing_broken")
    assert the(diagnosis, "umask_shuts_group_out")["remedy"] == "umask 002"
    assert "gradience" in finding["remedy"]
    agreed = subprocess.run(
        ["bash", "-c", f"{finding['remedy']} --yes"],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ
        | {"HOME": str(foreign_cache), "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"},
    )
    assert agreed.returncode == 0, agreed.stderr
    after = json.loads(as_nobody(LOOK_AS_NOBODY, foreign_cache))
    assert "group_sharing_broken" not in codes(after)
    assert (hub / "models--o--m").stat().st_mode & 0o2070 == 0o2070


# Above the line everything is imported and the library asked: user 65534 may not be able to read
# this Python. Below it, the look at the disk is that user's.
LOOK_AS_NOBODY = """
import dataclasses, json, os, sys
from datetime import UTC, datetime
from pathlib import Path
import msgspec
from gradience.storage.doctor.gather import Machine, gather
from gradience.storage.doctor.summary import summarise

here = Path.cwd()
machine = Machine(
    environ={"HF_HOME": str(here), "PATH": os.environ["PATH"]}, home=here, cwd=here,
    python=Path(sys.executable), now=datetime.now(UTC),
)
asked = gather(machine, only=("huggingface_hub",), use_cache=False).interpreter
###
facts = gather(machine, interpreter=asked, only=("huggingface_hub",), use_cache=False)
print(json.dumps(msgspec.to_builtins(summarise(facts))))
"""


def test_own_rights_taken_away_are_found_and_given_back(patient: Patient) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    hub = patient.home / ".cache/huggingface/hub"
    hub.mkdir(parents=True)
    hub.chmod(0o500)
    finding = the(patient.asks(*HUB), "directory_unwritable")
    assert grave(patient.asks(*HUB, before=finding["remedy"])) == []


def test_a_variable_without_effect_is_found_and_mended(patient: Patient) -> None:
    (patient.work / "train.py").write_text(
        "import os\n"
        "from huggingface_hub import snapshot_download\n"
        f"os.environ['HF_HOME'] = '{patient.home}/data'\n"
        "from huggingface_hub import constants\n"
        "print(constants.HF_HUB_CACHE)\n"
    )
    # What really happens: the variable has no effect.
    assert patient.runs("python train.py").stdout.strip() == (
        f"{patient.home}/.cache/huggingface/hub"
    )
    diagnosis = patient.asks(*HUB, "--", "python", "train.py")
    finding = the(diagnosis, "variable_after_import")
    assert finding["trouble"] == Trouble.VARIABLES
    assert diagnosis["places"][0]["path"] == f"{patient.home}/.cache/huggingface/hub"
    # The command given has the effect, and the doctor finds nothing in it.
    assert patient.runs(finding["remedy"]).stdout.strip() == f"{patient.home}/data/hub"
    mended = patient.asks(*HUB, "--", finding["remedy"])
    assert grave(mended) == []
    assert mended["places"][0]["path"] == f"{patient.home}/data/hub"


@pytest.mark.parametrize("value", ["$SCRATCH/hf", "~/hf", "", "relative/hf"])
def test_a_value_that_cannot_be_meant_is_found_and_mended(patient: Patient, value: str) -> None:
    """A dotenv file, a Dockerfile or a compose file passes values on as they are written."""
    patient.environ |= {"HF_HOME": value, "SCRATCH": str(patient.home / "scratch")}
    diagnosis = patient.asks(*HUB, "--library", "hf_xet")
    findings = [f for f in diagnosis["findings"] if f["trouble"] == Trouble.VARIABLES]
    if value == "~/hf":
        assert findings == []  # both of them expand it
        return
    [finding] = findings
    after = patient.asks(*HUB, "--library", "hf_xet", before=finding["remedy"])
    assert grave(after) == []
    assert all(place["path"].startswith(str(patient.home)) for place in after["places"])


@pytest.mark.parametrize(
    ("name", "value"),
    [("HF_HUB_ENABLE_HF_TRANSFER", "1"), ("HF_HUB_DISABLE_XET", "1")],
)
def test_a_switch_that_does_harm_or_nothing_is_found(
    patient: Patient, name: str, value: str
) -> None:
    patient.environ[name] = value
    [finding] = grave(patient.asks(*HUB))
    assert name in finding["message"]
    assert grave(patient.asks(*HUB, before=finding["remedy"])) == []


def test_a_line_in_the_profile_that_this_process_does_not_have(patient: Patient) -> None:
    (patient.home / ".bashrc").write_text('# storage\nexport HF_HOME="$HOME/hf"\n')
    finding = the(patient.asks(*HUB), "variable_not_in_process")
    assert ".bashrc, HF_HOME (line 2)" in finding["message"]
    after = patient.asks(*HUB, before=finding["remedy"])
    assert grave(after) == []
    assert after["places"][0]["path"] == f"{patient.home}/hf/hub"


def download(patient: Patient, url: str, cache: Path | str) -> None:
    """The real client fills a cache."""
    code = "from huggingface_hub import hf_hub_download as get; "
    code += "[get('o/m', name) for name in ('config.json', 'model.bin')]"
    line = f"HF_ENDPOINT={url} HF_HUB_CACHE='{cache}' HF_HUB_DISABLE_XET=1 python -c \"{code}\""
    done = patient.runs(line)
    assert done.returncode == 0, done.stderr


def test_the_same_model_downloaded_twice_is_found_and_merged(patient: Patient) -> None:
    old, new = patient.home / ".cache/huggingface/hub", patient.home / "data/hub"
    weights = {"config.json": b"{}", "model.bin": os.urandom(200_000)}
    with serve(o__m=Repo(weights)) as hub:
        download(patient, hub.url, old)
        download(patient, hub.url, new)
    patient.environ["HF_HUB_CACHE"] = str(new)
    finding = the(patient.asks(*HUB), "same_repo_in_two_caches")
    assert finding["trouble"] == Trouble.DUPLICATES
    assert "o/m" in finding["message"]
    after = patient.asks(*HUB, before=finding["remedy"])
    assert grave(after) == []
    assert "same_repo_in_two_caches" not in codes(after)
    assert old.readlink() == new
    offline = (
        "from huggingface_hub import hf_hub_download as get;"
        "print(len(open(get('o/m', 'model.bin', local_files_only=True), 'rb').read()))"
    )
    assert patient.runs(f'python -c "{offline}"').stdout.strip() == "200000"


def test_a_cache_left_behind_is_found_and_moved(patient: Patient) -> None:
    old, new = patient.home / ".cache/huggingface/hub", patient.home / "data/hub"
    with serve(o__m=Repo({"config.json": b"{}", "model.bin": b"1"})) as hub:
        download(patient, hub.url, old)
    patient.environ["HF_HUB_CACHE"] = str(new)
    finding = the(patient.asks(*HUB), "cache_left_behind")
    after = patient.asks(*HUB, before=finding["remedy"])
    assert codes(after) == set()
    assert (new / "models--o--m").is_dir()
    assert old.samefile(new)


def test_a_cache_left_behind_is_poured_into_the_one_in_use(patient: Patient) -> None:
    old, new = patient.home / ".cache/huggingface/hub", patient.home / "data/hub"
    with serve(o__m=Repo({"config.json": b"{}", "model.bin": b"1"}), o__n=Repo({"x": b"x"})) as hub:
        download(patient, hub.url, old)
    (new / "models--o--n").mkdir(parents=True)
    (new / "models--o--n/x").write_bytes(b"x")
    patient.environ["HF_HUB_CACHE"] = str(new)
    finding = the(patient.asks(*HUB), "cache_left_behind")
    after = patient.asks(*HUB, before=finding["remedy"])
    assert "cache_left_behind" not in codes(after)
    assert (new / "models--o--m/refs/main").is_file()
    assert old.readlink() == new


def left(directory: Path, name: str) -> Path:
    """A file of some size in a cache."""
    (directory / name).parent.mkdir(parents=True)
    (directory / name).write_bytes(os.urandom(1_200_000))
    return directory


def test_what_datasets_and_torch_left_behind_is_found_and_moved(patient: Patient) -> None:
    arrow = left(patient.home / ".cache/gradience/datasets", "imdb/plain/0.0.0/abc/imdb.arrow")
    torch_home = left(patient.home / ".cache/torch", "hub/checkpoints/resnet18.pth")
    small = patient.home / ".cache/huggingface/datasets/tiny/plain/0.0.0/abc"
    small.mkdir(parents=True)
    (small / "tiny.arrow").write_bytes(b"x" * 9000)
    new = {"HF_DATASETS_CACHE": patient.home / "data/arrow", "TORCH_HOME": patient.home / "data/t"}
    patient.environ |= {name: str(path) for name, path in new.items()}
    found = patient.asks(*HUB)["findings"]
    mends = [f["remedy"] for f in found if f["code"] == "cache_left_behind"]
    assert sorted(mends) == [
        f"gradience cache move {arrow} {new['HF_DATASETS_CACHE']}",
        f"gradience cache move {torch_home} {new['TORCH_HOME']}",
    ]
    assert codes(patient.asks(*HUB, before="\n".join(mends))) == set()
    assert (new["HF_DATASETS_CACHE"] / "imdb/plain/0.0.0/abc/imdb.arrow").is_file()
    assert (new["TORCH_HOME"] / "hub/checkpoints/resnet18.pth").is_file()


def test_what_datasets_left_behind_is_cleaned_and_nothing_in_the_cache_in_use(
    patient: Patient,
) -> None:
    caches = [patient.home / ".cache/huggingface/datasets", patient.home / "data/arrow"]
    for cache in caches:
        left(cache, "imdb/plain/0.0.0/abc/imdb.arrow")
        for path in (*cache.rglob("*"), cache):
            os.utime(path, (1_600_000_000, 1_600_000_000))
    patient.environ["HF_DATASETS_CACHE"] = str(caches[1])
    finding = the(patient.asks(*HUB), "cache_left_behind")
    assert "cache_left_behind" not in codes(patient.asks(*HUB, before=finding["remedy"]))
    assert [(cache / "imdb").exists() for cache in caches] == [False, True]


def test_what_a_program_names_instead_leaves_nothing_of_this_shell_behind(patient: Patient) -> None:
    HubMaker(patient.home / "shell/hub").add("o/m", "a", {"x": b"x" * 9000})
    patient.environ["HF_HOME"] = str(patient.home / "shell")
    (patient.work / "train.py").write_text("import huggingface_hub\n")
    program = ("env", f"HF_HOME={patient.home}/own", "python", "train.py")
    assert "cache_left_behind" not in codes(patient.asks(*HUB, "--", *program))


def test_caches_of_an_uninstalled_environment_are_found_and_brought_back(patient: Patient) -> None:
    env = [sys.executable, "-m", "gradience", "env", "--format", "bash", "--platform", "local"]
    assert patient.runs('"$@"', *env, "--root", "disk", "--install").returncode == 0
    made = patient.work / "disk"
    (made / "hub").rmdir()
    HubMaker(made / "hub").add("o/m", "a", {"x": b"x" * 9000})
    left(made / "datasets", "imdb/plain/0.0.0/abc/imdb.arrow")
    assert patient.runs('"$@"', *env, "--uninstall").returncode == 0
    found = patient.asks(*HUB)["findings"]
    mends = [f["remedy"] for f in found if f["code"] == "cache_left_behind"]
    usual = patient.home / ".cache/huggingface"
    assert mends == [
        f"gradience cache merge {made}/hub {usual}/hub",
        f"gradience cache move {made}/datasets {usual}/datasets",
    ]
    assert codes(patient.asks(*HUB, before="\n".join(mends))) == set()


def as_the_page_has_them(diagnosis: Mapping[str, Any]) -> str:
    """Every mend of a page, in its order, as one paste."""
    order = list(Trouble)
    found = sorted(diagnosis["findings"], key=lambda f: order.index(f["trouble"]))
    kept = codes(diagnosis)
    lines = [f["remedy"] for f in found if f["code"] in kept]
    # The question that follows is the other page that a mend asks for, with what it names.
    split = [(line, *line.partition("gradience doctor")) for line in lines]
    return "\n".join(f"export X=1 {names}" if again else line for line, names, again, _ in split)


POINTED_ELSEWHERE = {
    "the name is gone": lambda p: p.environ.update(TRANSFORMERS_CACHE="hf2"),
    "only the profile has it": lambda p: (p.home / ".bashrc").write_text(
        f"export HF_HUB_CACHE={p.work}/hf2\n"
    ),
    "nobody expanded it": lambda p: p.environ.update(
        HF_HUB_CACHE="$NOWHERE/hub", TRANSFORMERS_CACHE=f"{p.work}/hf2"
    ),
}


@pytest.mark.parametrize("why", list(POINTED_ELSEWHERE))
@pytest.mark.parametrize("used", [True, False])
def test_all_mends_of_a_page_end_in_one_cache_that_holds_everything(
    patient: Patient, why: str, used: bool
) -> None:
    usual = patient.home / ".cache/huggingface/hub"
    usual.mkdir(parents=True)
    with serve(o__m=Repo({"config.json": b"{}", "model.bin": b"1"})) as hub:
        download(patient, hub.url, patient.work / "hf2")
        if used:
            download(patient, hub.url, usual)
    patient.runs("cp -a hf2/models--o--m hf2/models--o--old")
    held = {"o--m", "o--old"}
    if used:
        patient.runs(f"cp -a {usual}/models--o--m {usual}/models--o--new")
        held |= {"o--new"}
    POINTED_ELSEWHERE[why](patient)
    diagnosis, pasted = patient.asks(*HUB), "true"
    for _ in range(4):  # a page may say that the rest is for the next one
        if not codes(diagnosis):
            break
        pasted += "\n" + as_the_page_has_them(diagnosis)
        diagnosis = patient.asks(*HUB, before=pasted)
    assert codes(diagnosis) == set()
    cache = Path(diagnosis["places"][0]["path"])
    assert {p.name.removeprefix("models--") for p in cache.glob("models--*")} == held


def test_a_cache_that_is_a_link_is_one_cache_and_none_is_left_behind(patient: Patient) -> None:
    link, real = patient.home / ".cache/huggingface/hub", patient.home / "data/hub"
    with serve(o__m=Repo({"config.json": b"{}", "model.bin": b"1"})) as hub:
        download(patient, hub.url, real)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(real)  # as `gradience cache move` leaves it
    patient.environ.pop("HF_HUB_CACHE", None)
    patient.environ["GRADIENCE_CACHE_DIR"] = str(patient.home / "g")
    assert "cache_left_behind" not in codes(patient.asks(*HUB))
    patient.environ["HF_HUB_CACHE"] = str(real)
    assert "cache_left_behind" not in codes(patient.asks(*HUB))


OF_A_TEAM = {
    "owner 1234": lambda hub: [os.chown(p, 1234, 1234) for p in (hub, *hub.iterdir())],
    "shared with the group 1234": lambda hub: (os.chown(hub, 0, 1234), hub.chmod(0o2775)),
}


@pytest.mark.root
@pytest.mark.parametrize("whose", list(OF_A_TEAM))
def test_all_mends_of_a_page_leave_the_cache_of_a_team_alone(
    patient: Patient, tmp_path: Path, whose: str
) -> None:
    if os.geteuid() != 0:
        pytest.skip("makes a cache of another user, which needs root")
    link, own = patient.home / ".cache/huggingface/hub", patient.home / "data/hub"
    team = tmp_path / "team/hub"
    HubMaker(team).add("o/theirs", "a", {"x": b"x" * 9000})
    with serve(o__m=Repo({"config.json": b"{}", "model.bin": b"1"})) as hub:
        download(patient, hub.url, own)
        download(patient, hub.url, team)
    OF_A_TEAM[whose](team)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(team)
    patient.environ["HF_HUB_CACHE"] = str(own)
    held = {cache: (cache.lstat().st_ino, content(cache)) for cache in (own, team)}
    diagnosis = patient.asks(*HUB)
    for code in ("same_repo_in_two_caches", "cache_left_behind"):
        assert the(diagnosis, code)["remedy"] == (
            f"# others may use {team} ({whose}): use it instead of a copy of your own, with "
            f"HF_HUB_CACHE={team}"
        )
    patient.asks(*HUB, before=as_the_page_has_them(diagnosis))
    assert {cache: (cache.lstat().st_ino, content(cache)) for cache in (own, team)} == held
    assert link.readlink() == team


@pytest.mark.parametrize("layouts", [(True, True), (True, False), (False, True)])
def test_all_mends_of_a_page_join_caches_with_shared_blobs(
    patient: Patient, layouts: tuple[bool, bool]
) -> None:
    old, new = patient.home / ".cache/huggingface/hub", patient.home / "data/hub"
    mine = two_hubs(old, new, old_store=layouts[0], new_store=layouts[1])
    theirs = content(new)
    for path in old.rglob("*"):  # nothing is in the middle of a download
        os.utime(path, (1_700_000_000, 1_700_000_000), follow_symlinks=False)
    patient.environ["HF_HUB_CACHE"] = str(new)
    diagnosis = patient.asks(*HUB)
    assert {"same_repo_in_two_caches", "cache_left_behind"} <= codes(diagnosis)
    after = patient.asks(*HUB, before=as_the_page_has_them(diagnosis))
    assert not {"same_repo_in_two_caches", "cache_left_behind"} & codes(after)
    assert content(new) == theirs | mine
    sound(new)
    load = (
        "from huggingface_hub import snapshot_download as get; import os;"
        "print(*(len(os.listdir(get(n, local_files_only=True)))"
        " for n in ('org/both', 'org/mine', 'org/theirs')))"
    )
    assert patient.runs(f'python -c "{load}"').stdout.split() == ["2", "2", "1"]


def test_the_login_lost_by_a_moved_home_is_found_and_named(patient: Patient) -> None:
    token = patient.home / ".cache/huggingface/token"
    token.parent.mkdir(parents=True)
    token.write_text("hf_nothing")
    token.chmod(0o600)
    patient.environ["HF_HOME"] = str(patient.home / "data")
    finding = the(patient.asks(*HUB), "login_lost")
    assert "hf_nothing" not in json.dumps(finding)
    assert grave(patient.asks(*HUB, before=finding["remedy"])) == []


def test_leftovers_and_damage_in_a_real_cache_are_found_and_mended(patient: Patient) -> None:
    hub_dir = patient.home / ".cache/huggingface/hub"
    with serve(o__m=Repo({"config.json": b"{}", "model.bin": os.urandom(5000)})) as hub:
        download(patient, hub.url, hub_dir)
    repo = hub_dir / "models--o--m"
    partial = repo / "blobs" / ("a" * 64 + ".12345678.incomplete")
    partial.write_bytes(bytes(1000))
    os.utime(partial, (1_700_000_000, 1_700_000_000))
    link = next(repo.glob("snapshots/*/model.bin"))
    link.resolve().unlink()
    diagnosis = patient.asks(*HUB)
    assert {"leftovers", "broken_repo"} <= codes(diagnosis)
    sound = next(repo.glob("snapshots/*/config.json"))
    for path in repo.rglob("*"):  # nothing stays because it is young
        os.utime(path, (1_700_000_000, 1_700_000_000), follow_symlinks=False)
    mends = "\n".join(f["remedy"] for f in diagnosis["findings"])
    assert codes(patient.asks(*HUB, before=mends)) == set()
    assert not partial.exists()
    assert not link.is_symlink()
    assert sound.read_bytes() == b"{}"


def test_idle_locks_go_and_one_that_is_held_stays_however_old(patient: Patient) -> None:
    hub_dir = patient.home / ".cache/huggingface/hub"
    with serve(o__m=Repo({"config.json": b"{}", "model.bin": b"1"})) as hub:
        download(patient, hub.url, hub_dir)
    locks = hub_dir / ".locks/models--o--m"
    for number in range(1001):
        (locks / f"{number}.lock").touch()
    for lock in locks.iterdir():
        os.utime(lock, (1_700_000_000, 1_700_000_000))
    finding = the(patient.asks(*HUB), "idle_locks")
    with (locks / "7.lock").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "idle_locks" not in codes(patient.asks(*HUB, before=finding["remedy"]))
        assert [lock.name for lock in locks.iterdir()] == ["7.lock"]


def test_zero_filled_weights_are_found_and_fetched_again(patient: Patient) -> None:
    hub_dir = patient.home / ".cache/huggingface/hub"
    with serve(o__m=Repo({"config.json": b"{}", "model.bin": os.urandom(50_000)})) as hub:
        download(patient, hub.url, hub_dir)
        link = next(hub_dir.glob("models--o--m/snapshots/*/model.bin"))
        link.resolve().write_bytes(bytes(50_000))
        finding = the(patient.asks(*HUB), "broken_weights")
        assert finding["severity"] == "error"
        assert codes(patient.asks(*HUB, before=finding["remedy"])) == set()
        download(patient, hub.url, hub_dir)
    assert any(link.read_bytes())


@pytest.mark.parametrize(
    "not_written", [None, "trainer_state.json", "optimizer.pt", "model.safetensors"]
)
def test_a_checkpoint_that_cannot_be_resumed_is_found_and_moved_aside(
    patient: Patient, not_written: str | None
) -> None:
    run = patient.work / "run"
    for step, whole in ((2, True), (4, not_written is None)):
        folder = run / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        save_file({"w": np.zeros(4, np.float32)}, folder / "model.safetensors")
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
            torch.save({"x": torch.zeros(10)}, folder / name)
        (folder / "trainer_state.json").write_text('{"global_step": 2}')
        if not whole and not_written:
            path = folder / not_written
            if path.suffix == ".json":
                path.unlink()
            else:
                path.write_bytes(path.read_bytes()[:-100])
    if not_written is None:
        assert "broken_checkpoint" not in codes(patient.asks(*HUB, "--project", str(run)))
        return
    diagnosis = patient.asks(*HUB, "--project", str(run))
    finding = the(diagnosis, "broken_checkpoint")
    assert "checkpoint-4" in finding["message"]
    after = patient.asks(*HUB, "--project", str(run), before=finding["remedy"])
    assert "broken_checkpoint" not in codes(after)
    assert (run / "broken-checkpoint-4").is_dir()


def test_a_second_broken_checkpoint_of_one_step_does_not_go_into_the_first(
    patient: Patient,
) -> None:
    run = patient.work / "run"
    for name in ("checkpoint-4", "broken-checkpoint-4"):
        (run / name).mkdir(parents=True)
        save_file({"w": np.zeros(4, np.float32)}, run / name / "model.safetensors")
    asked = (*HUB, "--project", str(run))
    patient.asks(*asked, before=the(patient.asks(*asked), "broken_checkpoint")["remedy"])
    assert {p.name for p in run.iterdir()} == {"broken-checkpoint-4", "broken-checkpoint-4-2"}
    assert [p.name for p in (run / "broken-checkpoint-4").iterdir()] == ["model.safetensors"]


HOLDS = """
import os, sys
from pathlib import Path
from gradience.storage.guard.records import Need
from gradience.storage.guard.run import Guard
from gradience.system import processes

run = Path(sys.argv[1])
guard = Guard(run)
guard.claim()
guard.smallest = Need(bytes=3_000_000, inodes=1)
guard.hold_reserve()
saving = guard.own.stage("checkpoint-2")
saving.mkdir()
(saving / "optimizer.pt").write_bytes(bytes(1_000_000))
(run / f".gradience-ballast-{processes.here()}-{os.getpid()}").write_bytes(bytes(500_000))
print("holds", flush=True)
sys.stdin.read()
"""


def test_what_a_killed_run_holds_is_found_and_given_back_and_not_while_the_run_goes_on(
    patient: Patient,
) -> None:
    run = patient.work / "run s"
    run.mkdir()
    asked = (*HUB, "--project", str(patient.work))
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, run], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert not {"dead_run", "broken_checkpoint"} & codes(patient.asks(*asked))
        process.kill()
    diagnosis = patient.asks(*asked)
    assert "broken_checkpoint" not in codes(diagnosis), "no resume would choose it"
    finding = the(diagnosis, "dead_run")
    assert "4.5" in finding["message"]
    after = patient.asks(*asked, before=finding["remedy"])
    assert "dead_run" not in codes(after)
    assert sorted(p.name for p in run.rglob("*")) == [".gradience", "in-use.lock", "replaced"]


def test_an_empty_variable_is_shown_where_the_real_client_writes(patient: Patient) -> None:
    patient.environ |= {"HF_HUB_CACHE": "", "HF_HOME": "~/x"}
    with serve(o__m=Repo({"config.json": b"{}", "model.bin": b"1"})) as hub:
        download(patient, hub.url, "")
    assert (patient.work / "models--o--m").is_dir()
    diagnosis = patient.asks(*HUB)
    place = diagnosis["places"][0]
    assert (place["path"], place["because"]) == (str(patient.work), "HF_HUB_CACHE")
    assert "variable_empty" in codes(diagnosis)
