"""What is decided before a save, and the arithmetic of a start."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from gradience.storage.checkpoints.records import Checkpoint
from gradience.storage.guard.decide import next_act
from gradience.storage.guard.need import Weights, judge_start, smallest, whole
from gradience.storage.guard.records import Act, Answer, Facts, Need

OLD = Checkpoint(path="checkpoint-1", step=1, bytes=10, files=5, resumes="exactly")
FULL = Facts(
    whole=Answer.NO,
    smallest=Answer.NO,
    rotatable=(OLD,),
    may_clean=True,
    reserve=True,
    exact_older=True,
)


def test_what_is_given_up_comes_in_the_order_of_what_it_costs():
    facts, acts = FULL, []
    for less in ({"rotatable": ()}, {"may_clean": False}, {"reserve": False}):
        acts.append(next_act(facts))
        facts = replace(facts, **less)
    assert acts == [Act.ROTATE, Act.CLEAN, Act.RELEASE]
    assert next_act(facts) is Act.LEAVE, "an exact older one is there"
    assert next_act(replace(facts, exact_older=False)) is Act.SMALLEST, "nothing to lose"
    assert next_act(replace(facts, smallest=Answer.YES)) is Act.SMALLEST


ANSWERS = st.sampled_from(list(Answer))


@given(
    st.builds(
        Facts,
        whole=ANSWERS,
        smallest=ANSWERS,
        rotatable=st.sampled_from([(), (OLD,), (OLD, OLD)]),
        may_clean=st.booleans(),
        reserve=st.booleans(),
        failures=st.integers(0, 5),
        exact_older=st.booleans(),
    )
)
def test_every_road_ends_and_nothing_is_given_up_for_a_save_that_fits(facts):
    if facts.failures == 0 and facts.whole is not Answer.NO:
        assert next_act(facts) is Act.SAVE
    for _ in range(6):
        act = next_act(facts)
        if act is Act.ROTATE:
            facts = replace(facts, rotatable=facts.rotatable[1:])
        elif act is Act.CLEAN:
            facts = replace(facts, may_clean=False)
        elif act is Act.RELEASE:
            facts = replace(facts, reserve=False)
        elif act is Act.SAVE:
            facts = replace(facts, failures=facts.failures + 1)
        else:
            break
    assert act in (Act.SMALLEST, Act.LEAVE) or facts.failures > 0
    assert act is not Act.LEAVE or facts.exact_older


def start(**facts):
    plain = {"need": Need(bytes=100, inodes=10), "reserve": Need(bytes=60, inodes=5)}
    plain |= {"room": 10**6, "limit_name": "user quota", "free_inodes": None, "saves": 4}
    plain |= {"keeps": 1, "complete": 0, "rotatable_bytes": 0}
    return judge_start(**{**plain, **facts})


def test_a_run_is_refused_that_could_not_replace_its_first_checkpoint():
    assert start(room=199).refused
    assert not start(room=200).refused
    assert start(room=259).tight, "two checkpoints and the reserve"
    assert not start(room=260).tight
    assert not start(room=100, saves=1).refused, "one save needs one"
    assert not start(room=100, complete=1).refused, "the one to replace is there"
    assert not start(room=100, rotatable_bytes=100).refused
    assert start(free_inodes=14).refused
    assert not start(room=None).refused, "nothing is refused on a guess"


def test_the_arithmetic_is_told_with_the_limit_that_binds():
    words = " ".join(start(room=199).lines)
    for part in ("100 B", "4 times", "2 at once", "60 B", "260 B in all", "199 B", "user quota"):
        assert part in words


def test_the_smallest_form_leaves_out_what_was_not_trained():
    weights = Weights(saved=1000_000_000, trained=1_000_000, optimizer=2_000_000, tokens=100_000)
    assert smallest(weights).bytes < 5_000_000 < 1_000_000_000 < whole(weights).bytes
    assert whole(weights).bytes - whole(weights, only_model=True).bytes > 2_000_000
