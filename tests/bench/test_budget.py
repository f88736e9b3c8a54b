"""A hard limit on bytes: what goes first, and whether a trial may start."""

from hypothesis import given
from hypothesis import strategies as st

from gradience.bench.driver.budget import RESERVE, Books, Part, Worth, arithmetic, evictions, excess

parts = st.lists(
    st.builds(
        Part,
        trial=st.text("ab", min_size=1, max_size=3),
        part=st.just("adapter"),
        nbytes=st.integers(1, 1000),
        worth=st.sampled_from(Worth),
    ),
    max_size=20,
)


@given(parts, st.integers(0, 5000))
def test_enough_goes_if_there_is_enough_and_nothing_goes_in_vain(
    found: list[Part], wanted: int
) -> None:
    chosen = evictions(found, wanted)
    freed = sum(part.nbytes for part in chosen)
    assert freed >= min(wanted, sum(part.nbytes for part in found))
    if chosen:
        assert freed - chosen[-1].nbytes < wanted


@given(parts, st.integers(1, 5000))
def test_what_goes_is_never_worth_more_than_what_stays(found: list[Part], wanted: int) -> None:
    chosen = list(evictions(found, wanted))
    stays = list(found)
    for part in chosen:
        stays.remove(part)
    if chosen and stays:
        assert max(p.worth for p in chosen) <= min(p.worth for p in stays)


def books(**other: int | None) -> Books:
    return Books(**{"used": 100, "promised": 50, "cap": None, "room": None, **other})


def test_a_trial_may_start_where_nothing_limits_it() -> None:
    assert excess(books(), 10**12) == 0


def test_what_running_trials_may_still_write_counts_against_the_budget() -> None:
    assert excess(books(cap=200), 50) == 0
    assert excess(books(cap=200), 51) == 1


def test_the_disk_keeps_a_reserve_whatever_the_budget_says() -> None:
    room = RESERVE + 100
    assert excess(books(cap=10**9, room=room), 50) == 0
    assert excess(books(cap=10**9, room=room), 60) == 10


def test_a_refusal_says_its_arithmetic() -> None:
    spare = [Part(trial="a", part="work", nbytes=30, worth=Worth.SCRATCH)]
    told = arithmetic(books(cap=200), "probe seed 0", 1000, spare)
    assert told == (
        "probe seed 0 writes about 1.00 KB, running trials may write 50 B; "
        "100 B of the budget of 200 B are in use; 30 B of that could be removed"
    )
    told = arithmetic(books(room=1000), "probe seed 0", 1000, [])
    assert "the disk takes 1.00 KB more, of which 64.0 MB stay free" in told
