"""`gradience cache apply`: a plan from a file says which; what, why and whether is seen anew."""

import grp
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from factories_caches import Caches, HubMaker, commit_of, old_and_new, repos
from factories_changes import names_below
from factories_disks import second_disk
from factories_moves import killed_at, planned
from hub_server import Repo, serve

FILES = {"w.safetensors": b"w" * 200_000, "config.json": b"{}"}
OLD = ("--min-age", "0s", "--offline")
OPEN = "import sys; f = open(sys.argv[1], 'rb'); print('open', flush=True); sys.stdin.readline()"


@pytest.fixture
def hub(tmp_path: Path) -> HubMaker:
    return old_and_new(tmp_path / "hf" / "hub", FILES)


@pytest.fixture
def gradience(tmp_path: Path) -> Caches:
    return Caches(tmp_path, COLUMNS="400")


def edit(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    plan = json.loads(file.read_text())
    change(plan["content"])
    file.write_text(json.dumps(plan))


def said(done: "subprocess.CompletedProcess[str]") -> str:
    return " ".join((done.stdout + done.stderr).split())


def test_a_plan_is_written_and_applied_later_and_what_changed_by_then_stays(
    gradience, hub, tmp_path
):
    written = gradience("clean", "--idle", "30d", "--plan", "plan.json", *OLD)
    assert written.returncode == 0
    assert len(repos(hub)) == 2
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["schema"] == "gradience.plan/v1"
    hub.add("org/new", "c", {"y": b"o" * 5000}, ref="late")
    (hub.repo("org/new") / "blobs" / "orphan").write_bytes(b"changed")
    done = gradience("apply", "plan.json", "--yes")
    assert done.returncode == 1
    assert "it changed after the plan" in " ".join(done.stdout.split())
    assert repos(hub) == {"models--org--new"}
    again = gradience("apply", "plan.json", "--yes")
    assert again.returncode == 1
    assert "gone, changed or used by now" in " ".join(again.stdout.split())
    assert gradience("apply", "none.json", "--yes").returncode == 3
    (tmp_path / "odd.json").write_text("{}")
    assert gradience("apply", "odd.json", "--yes").returncode == 3


def test_a_download_that_may_have_begun_since_keeps_the_blobs_of_its_repo(gradience, hub):
    snapshot = hub.repo("org/new") / "snapshots" / commit_of("b")
    orphan = hub.repo("org/new") / "blobs" / "orphan"
    for path in (snapshot, orphan):
        os.utime(path, (0, 0))
    written = gradience("clean", "--plan", "plan.json", "--offline")
    assert "1 orphan blob" in written.stdout
    os.utime(snapshot)
    done = gradience("apply", "plan.json", "--yes")
    assert (done.returncode, orphan.exists()) == (1, True)
    assert "a download may be under way; wait " in said(done)


def test_a_plan_for_a_directory_that_is_no_cache_here_is_refused(gradience, hub, tmp_path):
    gradience("clean", "--idle", "30d", "--plan", "plan.json", *OLD)
    elsewhere = str(tmp_path / "nowhere")
    done = gradience("apply", "plan.json", "--yes", HF_HOME=elsewhere)
    assert done.returncode == 2
    assert f"would change {hub.hub}/" in done.stderr
    assert "no part of a cache of this environment" in done.stderr
    assert len(repos(hub)) == 2
    again = gradience("apply", "plan.json", "--yes", "--at", f"hub={hub.hub}", HF_HOME=elsewhere)
    assert again.returncode == 0
    assert repos(hub) == {"models--org--new"}


def test_what_is_shown_comes_from_the_caches_whatever_the_file_says(gradience, hub, tmp_path):
    gradience("clean", "--idle", "30d", "--no-junk", "--plan", "plan.json", *OLD)

    def lie(plan: dict[str, Any]) -> None:
        plan["notes"] = ["nothing of value is in here"]
        plan["items"][0] |= {"reasons": ["an empty folder"], "how": "comes back by itself"}

    edit(tmp_path / "plan.json", lie)
    shown = gradience("apply", "plan.json", "--dry-run", "--offline").stdout
    assert "org/old@aaaaaaaaaaaa" in shown
    assert "last used 90 d ago" in shown
    for words in ("nothing of value", "an empty folder", "comes back by itself"):
        assert words not in shown


def test_acts_that_are_no_part_of_what_they_are_listed_under_are_not_done(gradience, hub, tmp_path):
    gradience("clean", "org/new", "--no-junk", "--plan", "new.json", *OLD)
    gradience("clean", "--idle", "30d", "--no-junk", "--plan", "old.json", *OLD)
    other = json.loads((tmp_path / "new.json").read_text())["content"]

    def swap(plan: dict[str, Any]) -> None:
        plan["actions"] = other["actions"]

    edit(tmp_path / "old.json", swap)
    before = names_below(tmp_path / "hf")
    done = gradience("apply", "old.json", "--yes", "--offline")
    assert done.returncode == 1
    assert "Nothing to do" in done.stdout
    assert "no part of what the plan lists it under" in said(done)
    assert names_below(tmp_path / "hf") == before


def test_locks_order_and_units_are_ours_not_those_of_the_file(gradience, hub, tmp_path):
    gradience("clean", "--idle", "30d", "--no-junk", "--plan", "plan.json", *OLD)

    def disarm(plan: dict[str, Any]) -> None:
        plan["actions"].reverse()
        for number, action in enumerate(plan["actions"]):
            action |= {"guard": "", "unit": number, "group": number}

    edit(tmp_path / "plan.json", disarm)
    shown = gradience("apply", "plan.json", "--dry-run", "--json", "--offline").stdout
    acts = json.loads(shown)["content"]["actions"]
    blobs = [act for act in acts if "/blobs/" in act["path"]]
    assert {act["guard"] for act in blobs} == {"hub_blob"}
    assert acts[0]["path"].endswith("refs/main")
    assert acts[0]["unit"] == next(a["unit"] for a in acts if "/snapshots/" in a["path"])


def test_what_came_into_use_or_was_pinned_or_needed_since_stays(gradience, hub, tmp_path):
    written = gradience("clean", "--idle", "30d", "--needed-by", tmp_path, "--plan", "p.json", *OLD)
    assert "org/old@" in written.stdout
    apply = ("apply", "p.json", "--yes", "--offline")
    blob = next((hub.repo("org/old") / "blobs").iterdir())
    with subprocess.Popen(
        [sys.executable, "-c", OPEN, blob], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as reader:
        assert reader.stdout is not None
        reader.stdout.readline()
        assert f"process {reader.pid}" in said(gradience(*apply))
        reader.communicate(b"\n")
    config = tmp_path / "train.yaml"
    config.write_text("model: org/old\n")
    assert "train.yaml names org/old" in said(gradience(*apply))
    config.unlink()
    (hub.repo("org/old") / "refs/main").unlink()
    assert "may have pinned it" in said(gradience(*apply))
    assert repos(hub) == {"models--org--new", "models--org--old"}
    (hub.repo("org/old") / "refs/main").write_text(commit_of("a"))
    assert "changed after the plan" in said(gradience(*apply))


def test_what_its_maker_overruled_is_shown_again_and_goes(gradience, hub, tmp_path):
    (hub.repo("org/old") / "refs/main").unlink()
    assert "pinned" in gradience("clean", "org/old", "--plan", "p.json", *OLD).stdout
    assert gradience("apply", "p.json", "--yes", "--offline").returncode == 2  # nothing to do
    gradience("clean", "--revision", "aaaa", "--no-junk", "--plan", "p.json", *OLD)
    done = gradience("apply", "p.json", "--yes", "--offline")
    assert done.returncode == 0, said(done)
    assert "BUT no ref names it" in said(done)
    assert repos(hub) == {"models--org--new"}


def test_what_the_hub_no_longer_has_by_then_stays(hub, tmp_path):
    served = Repo(files=FILES, commit=commit_of("a"))
    with serve(org__old=served) as server:
        gradience = Caches(tmp_path, HF_ENDPOINT=server.url, COLUMNS="400")
        gradience("clean", "--idle", "30d", "--min-age", "0s", "--plan", "p.json")
        del server.repos["org/old"]
        done = gradience("apply", "p.json", "--yes")
        assert "the Hub does not have it any more" in said(done)
        assert done.returncode == 1
        assert "models--org--old" in repos(hub)
        server.repos["org/old"] = served
        assert "not certain" not in said(gradience("apply", "p.json", "--dry-run"))


def test_a_project_that_is_not_there_to_be_asked_stops_it(gradience, hub, tmp_path):
    runs = tmp_path / "runs"
    runs.mkdir()
    gradience("clean", "--idle", "30d", "--needed-by", runs, "--plan", "p.json", *OLD)
    runs.rmdir()
    done = gradience("apply", "p.json", "--yes", "--offline")
    assert done.returncode == 5
    assert str(runs) in done.stderr
    assert "models--org--old" in repos(hub)


def test_a_plan_for_the_trash_is_undone_by_its_id(gradience, hub, tmp_path):
    gradience("clean", "--idle", "30d", "--trash", "--plan", "p.json", *OLD)
    before = names_below(hub.repo("org/old"))
    assert gradience("apply", "p.json", "--yes", "--offline").returncode == 0
    assert not hub.repo("org/old").exists()
    change = json.loads((tmp_path / "p.json").read_text())["content"]["id"]
    assert gradience("undo", change).returncode == 0
    assert names_below(hub.repo("org/old")) == before


def test_a_plan_of_equal_files_reaches_the_other_store_and_its_targets_are_seen_anew(
    gradience, hub, tmp_path
):
    models = tmp_path / ".ollama/models/blobs"
    models.mkdir(parents=True)
    blob = next(b for b in (hub.repo("org/old") / "blobs").iterdir() if b.stat().st_size > 100_000)
    copy = models / f"sha256-{blob.name}"
    shutil.copyfile(blob, copy)
    gradience("dedupe", "--plan", "p.json")
    plan = json.loads((tmp_path / "p.json").read_text())["content"]
    if not plan["actions"]:
        pytest.skip("owner or attributes of files differ here")
    odd = tmp_path / "elsewhere"
    shutil.copyfile(blob, odd)
    untouched = (tmp_path / "p.json").read_text()
    edit(tmp_path / "p.json", lambda plan: plan["actions"][0].update(target=str(odd)))
    assert gradience("apply", "p.json", "--yes").returncode == 1
    assert not copy.samefile(odd)
    (tmp_path / "p.json").write_text(untouched)
    done = gradience("apply", "p.json", "--yes")
    assert done.returncode == 0, said(done)
    assert plan["actions"][0]["verb"] == "reflink" or copy.samefile(blob)


def test_a_plan_of_a_sharing_can_be_taken_back_and_opens_nothing_more(gradience, hub, tmp_path):
    mine = grp.getgrgid(os.getegid()).gr_name
    before = hub.hub.stat().st_mode
    gradience("share", hub.hub, "--group", mine, "--plan", "p.json")
    done = gradience("apply", "p.json", "--yes")
    assert done.returncode == 0, said(done)
    assert f"group {mine}" in done.stdout
    assert hub.hub.stat().st_mode & 0o2070 == 0o2070
    (file,) = (tmp_path / ".cache/gradience/undo").iterdir()
    good = file.read_text()

    def open_all(plan: dict[str, Any]) -> None:
        for action in plan["actions"]:
            action["target"] = action["target"].rpartition(":")[0] + ":777"

    edit(file, open_all)
    assert gradience("apply", file, "--yes").returncode == 1
    assert not hub.hub.stat().st_mode & 0o007 & ~before
    file.write_text(good)
    assert gradience("apply", file, "--yes").returncode == 0
    assert hub.hub.stat().st_mode == before


def test_links_of_a_plan_are_made_where_nothing_is(gradience, hub, tmp_path):
    project = tmp_path / "project"
    project.mkdir()
    gradience("share", hub.hub, "--link", project / "hub", "--plan", "p.json")
    refused = gradience("apply", "p.json", "--yes")
    assert (refused.returncode, "--project" in refused.stderr) == (2, True)
    done = gradience("apply", "p.json", "--yes", "--project", project)
    assert done.returncode == 0, said(done)
    assert (project / "hub").samefile(hub.hub)


def test_a_plan_of_another_release_is_refused_by_its_title(gradience, hub, tmp_path):
    gradience("clean", "--plan", "p.json", *OLD)
    edit(tmp_path / "p.json", lambda plan: plan.update(title="compress"))
    done = gradience("apply", "p.json", "--yes")
    assert done.returncode == 2
    assert "'compress'" in done.stderr


def test_a_plan_that_spares_nothing_young_says_so(gradience, hub, tmp_path):
    gradience("clean", "--plan", "p.json", *OLD)
    shown = gradience("apply", "p.json", "--dry-run")
    assert "What is young is not spared" in said(shown)
    edit(tmp_path / "p.json", lambda plan: plan.update(min_age=900.0))
    assert "not spared" not in said(gradience("apply", "p.json", "--dry-run"))


@pytest.mark.parametrize("title", ["move", "merge", "share", "share (back)", "dedupe"])
def test_acts_of_another_sort_than_the_title_are_not_done(gradience, hub, tmp_path, title):
    gradience("clean", "--idle", "30d", "--plan", "p.json", *OLD)
    edit(tmp_path / "p.json", lambda plan: plan.update(title=title))
    before = names_below(tmp_path / "hf")
    done = gradience("apply", "p.json", "--yes", "--offline")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert names_below(tmp_path / "hf") == before


def test_a_plan_that_is_not_there_is_no_plan_and_no_refusal_of_the_disk(gradience, tmp_path):
    for file in (tmp_path / "nope.json", tmp_path):
        done = gradience("apply", file)
        assert done.returncode == 3
        assert f"{file} cannot be read" in said(done)


@pytest.mark.parametrize("step", ["placed", "swapped"])
def test_a_move_of_a_plan_that_was_cut_off_is_gone_on_with(gradience, hub, tmp_path, step):
    with second_disk(tmp_path) as disk:
        gradience("move", hub.hub, disk / "hub", "--plan", "p.json")
        assert killed_at(planned(hub.hub, disk / "hub"), step)
        shown = gradience("apply", "p.json", "--dry-run")
        assert (shown.returncode, f"of an unfinished move of {hub.hub}" in said(shown)) == (0, True)
        done = gradience("apply", "p.json", "--yes")
        assert done.returncode == 0, said(done)
        assert hub.hub.readlink() == disk / "hub"


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"target": "{root}/new/../hf/hub/in"}, id="detour_into_it"),
        pytest.param({"target": "{root}/link/in"}, id="link_into_it"),
        pytest.param({"target": "{root}/%00"}, id="no_name"),
        pytest.param({"target": "/"}, id="root"),
        pytest.param({"path": "hub/../../precious"}, id="detour_out_of_the_cache"),
    ],
)
def test_a_move_of_a_plan_goes_where_the_command_would_go_and_no_other_way(
    gradience, hub, tmp_path, change
):
    gradience("move", hub.hub, tmp_path / "new" / "hub", "--plan", "p.json")
    (tmp_path / "precious").mkdir()
    (tmp_path / "link").symlink_to(hub.hub)
    change = {key: value.format(root=tmp_path) for key, value in change.items()}
    edit(tmp_path / "p.json", lambda plan: plan["actions"][0].update(change))
    done = gradience("apply", "p.json", "--yes")
    assert done.returncode in (2, 3), said(done)
    assert done.stderr.startswith("error: "), done.stderr
    assert (hub.hub.is_dir(), hub.hub.is_symlink()) == (True, False)
    assert (tmp_path / "precious").is_dir()
