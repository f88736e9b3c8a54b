"""A fast slice of benchmarks/survival.py: real Trainers on real disks that fill up."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

pytest.importorskip("transformers")
pytest.importorskip("datasets")
pytest.importorskip("peft")

from factories_disks import tmpfs
from survival import Lab, newest, wipe
from survival_run import Spec

SLICE = [
    ("tmpfs", "full, limit 1", "first save"),
    ("tmpfs", "adapter, limit 2, best", "no inodes"),
    ("btrfs", "full, limit 1", "in optimizer.pt"),
    ("btrfs", "full, limit 2, best", "third save"),
    ("fuse", "full, limit 1", "before rotation"),
    ("shim", "full, limit 1", "in optimizer.pt"),
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield Lab(tmp_path_factory.mktemp("lab"))


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.parametrize(("kind", "setting", "fault"), SLICE, ids=[" ".join(s) for s in SLICE])
def test_without_the_guard_the_run_is_lost_and_with_it_it_ends_as_if_nothing_happened(
    lab, kind, setting, fault
):
    row = lab.row(kind, setting, fault)
    assert not row.without.survived, "or this fault proves nothing"
    assert row.guarded.survived, row.guarded


@pytest.mark.slow
def test_killed_while_it_saves_a_run_resumes_from_the_save_before(lab, tmp_path):
    plain = Spec(out=str(tmp_path / "out"), report=str(tmp_path / "report.json"))
    spec = replace(plain, guarded=True, fault="kill", at_step=4)
    assert lab.run(spec) == {"died": "killed"}
    assert newest(tmp_path / "out") == 2
    again = lab.run(replace(spec, fault="", resume=True))
    assert again["weights"] == lab.undisturbed(plain)["weights"]
    assert not (tmp_path / "out" / ".gradience").exists()


@pytest.mark.root
@pytest.mark.slow
def test_two_processes_agree_on_what_to_do_and_on_the_resume(tmp_path):
    with tmpfs(tmp_path / "disk", "size=24m") as place:
        spec = Spec(
            out=str(place / "out"),
            report=str(tmp_path / "report.json"),
            guarded=True,
            fault="fill",
            at_step=2,
            leave=0.1,
            checkpoint_bytes=1_300_000,
        )
        stopped = in_two_processes(spec)
        assert stopped["step"] == 4
        assert "checkpoint-2 is the newest complete" in stopped["stopped"]
        wipe(place / "out")
        assert not (place / "out" / ".gradience").exists()
        again = in_two_processes(replace(spec, fault="", resume=True))
        assert (again["step"], again["stopped"]) == (8, "")


def in_two_processes(spec: Spec) -> dict[str, object]:
    """Train with gloo; what the first process reports."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environ = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    environ |= {"MASTER_PORT": str(port)}
    child = Path(sys.modules["survival_run"].__file__)
    processes = [
        subprocess.Popen(
            [sys.executable, child, json.dumps(asdict(spec))],
            env=environ | {"RANK": rank, "LOCAL_RANK": rank},
        )
        for rank in ("0", "1")
    ]
    assert [process.wait(timeout=100) for process in processes] == [0, 0]
    return json.loads(Path(f"{spec.report}0").read_text())
