"""`gradience cache share` and `dedupe` as a user runs them."""

import grp
import json
import os
from pathlib import Path

import pytest

from factories_caches import Caches, HubMaker


@pytest.fixture
def gradience(tmp_path: Path) -> Caches:
    return Caches(tmp_path, HF_HUB_CACHE=str(tmp_path / "hub"))


def test_a_group_shares_it_and_the_printed_command_takes_it_back(gradience, tmp_path):
    hub = HubMaker(tmp_path / "hub").hub
    mine = grp.getgrgid(os.getegid()).gr_name
    before = hub.stat().st_mode
    assert "Share 1 thing" in gradience("share", hub, "--group", mine, "--dry-run").stdout
    done = gradience("share", hub, "--group", mine, "--yes")
    assert done.returncode == 0, done.stderr
    assert hub.stat().st_mode & 0o2070 == 0o2070
    (file,) = (tmp_path / ".cache" / "gradience" / "undo").iterdir()
    assert f"gradience cache apply {file}" in done.stderr
    assert gradience("apply", file, "--yes").returncode == 0
    assert hub.stat().st_mode == before
    assert "no group" in gradience("share", hub, "--group", "no-such-group").stderr
    assert gradience("share", hub).returncode == 2


def test_the_id_of_a_plan_from_a_file_leads_nowhere_else(gradience, tmp_path):
    hub = HubMaker(tmp_path / "hub").hub
    mine = grp.getgrgid(os.getegid()).gr_name
    gradience("share", hub, "--group", mine, "--plan", "plan.json")
    plan = json.loads((tmp_path / "plan.json").read_text())
    plan["content"]["id"] = "../../../planted"
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    done = gradience("apply", "plan.json", "--yes")
    assert (done.returncode, "is no id of a plan" in done.stderr) == (3, True)
    assert not list(tmp_path.rglob("planted*"))


def test_two_caches_are_deduped_and_the_receipt_says_what_it_freed(gradience, tmp_path):
    for name in ("hub", "old"):
        HubMaker(tmp_path / name).add("org/m", "a", {"w": b"w" * 200_000})
    done = gradience("dedupe", "--at", f"hub={tmp_path / 'old'}", "--yes", "--json")
    assert done.returncode == 0, done.stderr
    receipt = json.loads(done.stdout)["content"]
    assert receipt["title"] == "dedupe"
    assert receipt["freed"] >= 200_000 or receipt["outcomes"][0]["what"] == "reflink"
