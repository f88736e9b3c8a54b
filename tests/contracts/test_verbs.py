"""What every verb and guard keeps, over every registered name."""

from pathlib import Path

import pytest

from factories_changes import names_below, plan_of
from gradience.files.below import Below
from gradience.storage.change.guards import GUARDS
from gradience.storage.change.site import Site
from gradience.storage.change.verbs import VERBS


def directory(root: Path) -> str:
    (root / "d").mkdir(parents=True)
    return "d"


@pytest.mark.parametrize("name", ["delete", "prune", "trash"])
def test_what_a_verb_did_can_be_taken_back_and_both_may_be_repeated(tmp_path, name):
    plan = plan_of(tmp_path, directory(tmp_path), verb=name)
    verb, action = VERBS[name], plan.actions[0]
    before = names_below(tmp_path)
    with Below(str(tmp_path)) as below:
        site = Site(below, "test")
        site.open_own()
        assert verb.check(action, site) == ""
        verb.undo(action, site)  # before anything was done: nothing to take back
        verb.do(action, site)
        assert names_below(tmp_path) != before
        verb.undo(action, site)
        verb.undo(action, site)
        assert names_below(tmp_path) == before
        verb.do(action, site)
        verb.finish(action, site)
        verb.finish(action, site)
        assert names_below(tmp_path) != before


@pytest.mark.parametrize("name", list(VERBS))
def test_a_verb_says_what_it_did_and_what_it_needs(name):
    verb = VERBS[name]
    assert verb.done
    assert verb.needs_journal in (True, False)
    assert verb.exact in (True, False)


@pytest.mark.parametrize("name", list(GUARDS))
def test_a_guard_answers_in_words_for_any_name(tmp_path, name):
    (tmp_path / "x").write_bytes(b"x")
    action = plan_of(tmp_path, "x", guard=name).actions[0]
    with Below(str(tmp_path)) as below, GUARDS[name].hold(action, Site(below, "t")) as why:
        assert isinstance(why, str)
    assert GUARDS[name].grace >= 0
