"""A change that a newer release began: left as it is, named with the way out, in nobody's way."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from factories_changes import carry_out, dies, names_below, nobody, plan_of, states
from gradience.errors import StorageError
from gradience.storage.change.recover import recover

Edit = Callable[[dict[str, Any]], None]


def newer_verb(plan: dict[str, Any]) -> None:
    for action in plan["content"]["actions"]:
        action["verb"] = "exchange_many"


def newer_schema(plan: dict[str, Any]) -> None:
    plan["schema"] = "gradience.plan/v2"
    plan["content"] = {"acts": []}


def cut_off(root: Path, edit: Edit) -> Path:
    """A change of a newer release, killed half-way; the file of its plan."""
    root.mkdir(parents=True)
    for name in ("a", "b"):
        (root / name).write_bytes(b"x" * 5000)
    assert dies(plan_of(root, "a", "b"), steps=6)
    file = root / ".gradience/test/plan.json"
    plan = json.loads(file.read_text())
    plan["written_by"] = "gradience 9.1.0"
    edit(plan)
    file.write_text(json.dumps(plan))
    return file


@pytest.mark.parametrize("edit", [newer_verb, newer_schema])
def test_it_is_left_as_it_is_and_named_with_the_release_that_can_settle_it(tmp_path, edit):
    file = cut_off(tmp_path / "root", edit)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(StorageError, match=r"gradience 9\.1\.0") as caught:
        recover(str(tmp_path / "root"), nobody)
    assert ".gradience/test" in str(caught.value)
    assert "gradience cache undo --list" in caught.value.remedy
    assert sorted(tmp_path.rglob("*")) == before
    assert file.exists()


def test_work_on_other_caches_goes_on(tmp_path):
    cut_off(tmp_path / "newer", newer_verb)
    other = tmp_path / "other"
    other.mkdir()
    (other / "c").write_bytes(b"x" * 5000)
    first, second = plan_of(tmp_path / "newer", "b"), plan_of(other, "c")
    second_action = msgspec.structs.replace(second.actions[0], item=1, unit=1, group=1)
    both = msgspec.structs.replace(
        second,
        id="both",
        items=(*first.items, *second.items),
        actions=(*first.actions, second_action),
    )
    receipt = carry_out(both)
    assert states(receipt) == ["failed", "done"]
    assert "exchange_many" in receipt.outcomes[0].reasons[0]
    assert names_below(other) == set()
    assert (tmp_path / "newer/b").exists()


def test_trash_of_a_newer_release_stays_trash(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "a").write_bytes(b"x")
    carry_out(plan_of(root, "a", verb="trash"))
    file = root / ".gradience/test/plan.json"
    plan = json.loads(file.read_text())
    newer_schema(plan)
    file.write_text(json.dumps(plan))
    assert recover(str(root), nobody) == []
    assert not (root / "a").exists()
