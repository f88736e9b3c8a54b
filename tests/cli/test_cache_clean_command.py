"""`gradience cache clean`, `apply` and `undo` as a user runs them."""

import asyncio
import json
import time
from pathlib import Path

import pytest

from factories_caches import Caches, HubMaker, commit_of, old_and_new, repos
from factories_changes import top
from factories_disks import tmpfs

FILES = {"w.safetensors": b"w" * 200_000, "config.json": b"{}"}
OLD = ("--min-age", "0s", "--offline")


@pytest.fixture
def hub(tmp_path: Path) -> HubMaker:
    return old_and_new(tmp_path / "hf" / "hub", FILES)


@pytest.fixture
def gradience(tmp_path: Path) -> Caches:
    return Caches(tmp_path)


def test_a_dry_run_shows_the_plan_and_changes_nothing(gradience, hub):
    done = gradience("clean", "--idle", "30d", "--dry-run", *OLD)
    assert done.returncode == 0
    assert "Delete 2 things" in done.stdout
    assert "last used 90 d ago" in done.stdout
    assert "1 orphan blob" in done.stdout
    assert repos(hub) == {"models--org--new", "models--org--old"}
    assert ".gradience" not in top(hub.hub)


def test_only_junk_takes_no_revision_of_the_kind_that_is_named(gradience, hub):
    done = gradience("clean", "--only-junk", "--kind", "hub", "--yes", *OLD)
    assert "1 orphan blob" in done.stdout
    assert done.returncode == 0
    assert repos(hub) == {"models--org--new", "models--org--old"}
    done = gradience("clean", "--only-junk", "--no-junk", "--dry-run", *OLD)
    assert done.returncode == 2
    assert "leave nothing" in done.stderr


def test_without_a_terminal_and_without_yes_it_refuses(gradience, hub):
    done = gradience("clean", "--idle", "30d", *OLD, stdin="y\n")
    assert done.returncode == 2
    assert "there is no terminal to ask on" in done.stderr
    assert "--yes" in done.stderr
    assert len(repos(hub)) == 2


def test_yes_carries_it_out_and_json_is_the_receipt(gradience, hub):
    done = gradience("clean", "--idle", "30d", "--yes", "--json", *OLD)
    assert done.returncode == 0
    receipt = json.loads(done.stdout)
    assert receipt["schema"] == "gradience.receipt/v1"
    assert 200_000 < receipt["content"]["freed"] <= receipt["content"]["planned"]
    assert repos(hub) == {"models--org--new"}


def test_trash_is_listed_brought_back_and_emptied(gradience, hub):
    done = gradience("clean", "org/old", "--trash", "--yes", *OLD)
    assert "to the trash: " in done.stdout
    assert "gradience cache undo" in done.stdout
    assert repos(hub) == {"models--org--new"}
    assert "org/old@" in gradience("undo", "--list").stdout
    assert "trash of gradience" in gradience("ls").stdout
    back = gradience("undo")
    assert "Brought back" in back.stdout
    snapshot = hub.repo("org/old") / "snapshots" / commit_of("a")
    assert (snapshot / "w.safetensors").read_bytes() == FILES["w.safetensors"]
    gradience("clean", "org/old", "--trash", "--yes", *OLD)
    assert gradience("undo", "--empty").returncode == 2
    assert "Freed" in gradience("undo", "--empty", "--yes").stdout
    assert "empty" in gradience("undo").stdout


@pytest.mark.parametrize("where", ["snapshots", "."])
@pytest.mark.parametrize("how", [(), ("--trash",)], ids=["", "trash"])
def test_a_stray_file_keeps_its_directory_and_the_receipt_says_which(gradience, hub, where, how):
    stray = hub.repo("org/old") / where / ".DS_Store"
    stray.write_bytes(b"x")
    done = gradience("clean", "org/old", "--yes", *how, *OLD)
    said = " ".join(done.stdout.split())
    assert done.returncode == 1
    assert "not all of it went" in said
    assert "put back" not in said
    assert "stays, with .DS_Store in it" in said
    assert stray.read_bytes() == b"x"
    assert list((hub.repo("org/old") / "snapshots").glob("[!.]*")) == []


def test_of_a_link_that_comes_back_to_nothing_no_cause_is_invented(gradience, hub):
    snapshot = next((hub.repo("org/old") / "snapshots").iterdir())
    (snapshot / "dangling").symlink_to("../../blobs/nowhere")
    gradience("clean", "org/old", "--trash", "--yes", *OLD)
    said = " ".join(gradience("undo").stdout.split())
    assert "a link to what is not there: models--org--old" in said
    assert "removed since" not in said


def test_a_change_that_left_no_trash_cannot_be_undone(gradience, hub):
    assert gradience("undo").returncode == 0
    done = gradience("undo", "20260101-000000-abcd")
    assert done.returncode == 2
    assert "there is no trash named 20260101-000000-abcd" in done.stderr


def test_undo_never_overwrites_what_came_in_the_meantime(gradience, hub):
    gradience("clean", "org/old", "--trash", "--yes", *OLD)
    again = hub.add("org/old", "a", {"w.safetensors": b"new"})
    done = gradience("undo")
    assert done.returncode == 1
    assert "something has that name by now" in done.stdout
    assert (again / "w.safetensors").read_bytes() == b"new"


@pytest.mark.parametrize("name", ["pyproject.toml", "policy.toml", "policy.yaml"])
def test_a_policy_file_is_an_ordered_list_of_rules(gradience, hub, tmp_path, name):
    rules = [{"names": ["org/old"], "keep": True}, {"idle": "30d", "junk": False}]
    if name.endswith("yaml"):
        text = json.dumps({"rules": rules, "min-age": "0s"})
    else:
        table = "tool.gradience.cache" if name == "pyproject.toml" else None
        rows = ['names = ["org/old"]\nkeep = true\n', 'idle = "30d"\njunk = false\n']
        prefix = f"{table}." if table else ""
        text = f"[{table}]\n" if table else ""
        text += 'min-age = "0s"\n' + "".join(f"[[{prefix}rules]]\n{row}" for row in rows)
    (tmp_path / name).write_text(text)
    done = gradience("clean", "--policy", name, "--dry-run", "--offline")
    assert done.returncode == 0, done.stderr
    assert "Nothing to do" in done.stdout
    assert "a rule keeps it" in done.stdout


def test_a_typo_in_a_policy_names_the_key_and_the_file(gradience, hub, tmp_path):
    (tmp_path / "p.toml").write_text('[[rules]]\nidel = "30d"\n')
    done = gradience("clean", "--policy", "p.toml", "--dry-run")
    assert done.returncode == 2
    assert "p.toml" in done.stderr
    assert "idel" in done.stderr
    (tmp_path / "p.toml").write_text('[[rules]]\nidle = "30 dogs"\n')
    assert "30 dogs" in gradience("clean", "--policy", "p.toml").stderr
    for option in (("--idle", "3d"), ("--keep-last", "1")):
        done = gradience("clean", "--policy", "p.toml", *option)
        assert (done.returncode, "cannot be combined" in done.stderr) == (2, True)


@pytest.mark.root
def test_emergency_frees_a_disk_without_a_byte_left(gradience, tmp_path):
    with tmpfs(tmp_path / "inductor", "size=1m") as disk:
        (disk / "ke").mkdir()
        (disk / "ke" / "ckernel.py").write_bytes(b"x" * 500_000)
        with pytest.raises(OSError, match="No space"):
            (disk / "fill").write_bytes(b"x" * 2**20)
        start = time.perf_counter()
        done = gradience("clean", "--emergency", "--min-age", "0s", "--yes")
        assert time.perf_counter() - start < 20
        assert done.returncode == 0, done.stderr
        assert top(disk) == ["fill"]


def test_a_cut_off_change_is_settled_before_the_next_plan(gradience, hub):
    from gradience.files.below import Below  # noqa: PLC0415
    from gradience.storage.change.site import Site  # noqa: PLC0415

    with Below(str(hub.hub)) as below:
        site = Site(below, "lost")
        site.open_own()
        site.set_aside("models--org--new/refs/main")
    assert gradience("clean", "--dry-run", *OLD).returncode == 0
    assert not (hub.repo("org/new") / "refs" / "main").exists()  # a dry run changes nothing
    done = gradience("clean", "--yes", *OLD)
    assert "put back" in done.stderr
    assert (hub.repo("org/new") / "refs" / "main").read_text() == commit_of("b")


def test_pick_marks_by_eye_and_shows_the_plan_of_what_was_marked(hub):
    pytest.importorskip("textual")
    from datetime import UTC, datetime  # noqa: PLC0415

    from gradience.cli.pick_screen import PickScreen  # noqa: PLC0415
    from gradience.storage.change.candidates import candidates  # noqa: PLC0415
    from gradience.storage.inventory.take import survey  # noqa: PLC0415

    found = survey(
        environ={"HF_HUB_CACHE": str(hub.hub)},
        home=hub.hub.parent,
        now=datetime.now(UTC),
        kinds=["hub"],
    )
    screen = PickScreen(candidates(found, 0.0), found.inventory.made)

    async def use() -> None:
        async with screen.run_test() as pilot:
            await pilot.press("space", "a", "s", "enter")

    asyncio.run(use())
    (marked,) = screen.return_value or ()
    assert marked.name.startswith("org/old@")


def test_pick_without_a_terminal_says_so(gradience, hub):
    done = gradience("clean", "--pick", stdin="")
    assert (done.returncode, "needs a terminal" in done.stderr) == (2, True)


def test_a_name_with_a_typo_is_answered_with_the_nearest_one(gradience, hub):
    done = gradience("clean", "org/odl*", "--dry-run", *OLD)
    assert done.returncode == 2
    assert "nothing in the caches is named org/odl*" in done.stderr
    assert "Did you mean 'org/old'?" in done.stderr
    assert "org/old" in gradience("ls", "odl").stdout
    assert gradience("clean", "zzz", "--dry-run", *OLD).returncode == 2


def test_what_is_too_young_to_be_called_abandoned_is_counted(gradience, hub):
    (hub.repo("org/new") / "blobs" / f"{'e' * 64}.incomplete").touch()
    said = " ".join(gradience("clean", "--dry-run", "--offline").stdout.split())
    assert "Nothing to do." in said
    assert "2 parts of downloads and builds that may go on" in said
    assert "--min-age" in said


def test_processes_that_cannot_be_seen_matter_only_where_others_may_enter(hub):
    from gradience.storage.change.mounts import is_open_to_others  # noqa: PLC0415

    for directory in (hub.hub, *hub.hub.parents):
        if not directory.stat().st_mode & 0o011:
            assert not is_open_to_others(str(hub.hub))
            break
    hub.hub.parent.chmod(0o700)
    assert not is_open_to_others(str(hub.hub))


def test_many_things_without_a_telling_name_share_a_row(gradience, hub, tmp_path):
    for two in ("aa", "bb", "cc", "dd", "ee", "ff", "gg"):
        code = tmp_path / "inductor" / two / f"c{two}x.py"
        code.parent.mkdir(parents=True)
        code.write_bytes(b"x" * 5000)
    shown = gradience("clean", "--kind", "inductor", "--dry-run", *OLD).stdout
    assert "aa, bb, cc and 4 more" in shown
    assert "Delete 7 things, 7 names" in shown
    every = gradience("clean", "--kind", "inductor", "--dry-run", "--all", *OLD).stdout
    assert "and 4 more" not in every


def test_empty_directories_are_no_entries(gradience, hub, tmp_path):
    (tmp_path / "inductor/aa").mkdir(parents=True)
    (tmp_path / "hf/xet/logs").mkdir(parents=True)
    listed = gradience("ls").stdout
    assert "2 entries" in listed
    assert "logs" not in listed


def test_the_help_of_a_clean_has_every_option_under_a_heading(gradience):
    said = gradience("clean", "--help").stdout
    for heading in ("What goes:", "What stays:", "Where:", "How:"):
        assert heading in said
    assert "[NAME]..." not in said.partition("What goes:")[2]
