"""Local processes, Ray and Slurm: the same trials, the same numbers, to the last bit."""

import json
import tempfile
from pathlib import Path

import pytest

from bench.test_ray_executor import ran


@pytest.mark.slow
def test_every_executor_gives_the_same_ledger_and_the_same_answers(tmp_path: Path) -> None:
    # Ray's sockets need a short path.
    with tempfile.TemporaryDirectory(prefix="t", ignore_cleanup_errors=True) as temporary:
        script = str(Path(__file__).with_name("same_answers.py"))
        home = tmp_path / "home"
        printed = ran(script, str(tmp_path), OMP_NUM_THREADS="1", TMPDIR=temporary, HOME=str(home))
        assert not list(Path(temporary).glob("gradience-*"))
    came = json.loads(printed.splitlines()[-1])
    assert set(came) == {"local", "ray", "slurm"}
    assert len(came["local"]["numbers"]) == 2, came
    assert came["ray"]["numbers"] == came["local"]["numbers"], came
    assert came["slurm"]["numbers"] == came["local"]["numbers"], came
    names = {path.name for path in tmp_path.glob("local/trials/*/*")} - {"running"}
    for other in ("ray", "slurm"):
        assert {path.name for path in tmp_path.glob(f"{other}/trials/*/*")} == names
        assert {path.name for path in (tmp_path / other).iterdir()} == {"settings.json", "trials"}
    assert not (home / ".ray").exists()
