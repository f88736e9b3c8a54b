"""A fast slice of benchmarks/survival.py: real Trainers on real disks that fill up."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

pytest.importorskip("transformers")
pytest.importorskip("datasets")
pytest.importorskip("peft")

from factories_disks import SHARED
from survival import Lab, newest
from survival_run import Spec

SLICE = [
    ("tmpfs", "full, limit 1", "first save"),
    ("tmpfs", "adapter, limit 2, best", "no inodes"),
    ("btrfs", "full, limit 1", "in optimizer.pt"),
    ("btrfs", "full, limit 2, best", "third save"),
    ("fuse", "full, limit 1", "before rotation"),
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
    spec = Spec(**{**asdict(plain), "guarded": True, "fault": "kill", "at_step": 4})
    assert lab.run(spec) == {"died": "killed"}
    assert newest(tmp_path / "out") == 2
    again = lab.run(Spec(**{**asdict(spec), "fault": "", "resume": True}))
    assert again["weights"] == lab.undisturbed(plain)["weights"]
    assert not (tmp_path / "out" / ".gradience").exists()


@pytest.mark.slow
def test_where_nothing_can_be_freed_the_run_stops_at_the_last_complete_checkpoint(lab, tmp_path):
    """The preload shim counts what is written and gives nothing back."""
    source = SHARED / "tools" / "quota_preload.c"
    if not source.is_file() or shutil.which("gcc") is None or not sys.platform.startswith("linux"):
        pytest.skip("needs gcc and ../shared/tools/quota_preload.c")
    library = tmp_path / "quota.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-o", library, source, "-ldl"], check=True)
    spec = Spec(
        out=str(tmp_path / "out"), report=str(tmp_path / "report.json"), guarded=True, limit=1
    )
    calm = lab.undisturbed(spec)
    budget = {"QB_DIR": spec.out, "QB_BYTES": str(round(2.5 * calm["bytes"])), "QB_ERRNO": "122"}
    child = Path(sys.modules["survival_run"].__file__)
    subprocess.run(
        [sys.executable, child, json.dumps(asdict(spec) | {"preflight": False})],
        env=os.environ | budget | {"LD_PRELOAD": str(library)},
        check=True,
    )
    found = json.loads(Path(spec.report).read_text())
    assert "checkpoint-4 is the newest complete checkpoint" in found["stopped"]
    again = lab.run(Spec(**{**asdict(spec), "resume": True}))
    assert again["weights"] == calm["weights"]
