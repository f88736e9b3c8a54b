"""One ahead: what comes next is on its way while the last is in use, and no more than that."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
from msgspec.structs import replace

from gradience.errors import TransferError
from gradience.tensors.remote.lookahead import LookAhead, Span
from gradience.tensors.remote.range_file import Told

SIZE = 1000


@dataclass(eq=False)
class Shelf:
    """A `RangeFile` in memory that notes what was asked, and waits where it is told to."""

    asked: list[int] = field(default_factory=list)
    came: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    gate: threading.Event = field(default_factory=threading.Event)
    broken: frozenset[int] = frozenset()
    name: str = "shelf"
    size: int = 10 * SIZE
    validator: str = ""
    names_version: bool = True

    def head(self, most: int) -> bytes:
        return b""

    def read_into(
        self, begin: int, buffer: memoryview, *, told: Told, stop: threading.Event
    ) -> None:
        number = begin // SIZE
        self.asked.append(number)
        self.came.release()
        self.gate.wait(10)
        if number in self.broken or stop.is_set():
            raise TransferError(f"{number} is broken", remedy="None.")
        buffer[:] = bytes([number]) * len(buffer)
        told(len(buffer))

    def span(self, number: int) -> Span:
        return Span(file=self, begin=number * SIZE, end=(number + 1) * SIZE)


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    made = Shelf()
    made.gate.set()
    yield made
    made.gate.set()


def test_the_next_is_fetched_while_one_is_in_use_and_no_other(shelf: Shelf) -> None:
    ahead = LookAhead(small=0)
    ahead.expect([shelf.span(number) for number in range(5)])
    for number in range(5):
        data = ahead.get(shelf.span(number))
        assert (data == number).all()
        wanted = min(number + 2, 5)
        for _ in range(wanted - len(shelf.asked)):
            assert shelf.came.acquire(timeout=5)
        assert sorted(set(shelf.asked)) == list(range(wanted))
        # However often it is read, it came once.
        assert ahead.get(shelf.span(number)) is data
        assert len(ahead._held) <= 2
        ahead.release(shelf.span(number))
    assert sorted(shelf.asked) == list(range(5))
    assert ahead._held == {}


def test_small_ones_come_with_the_next_large_one(shelf: Shelf) -> None:
    ahead = LookAhead(small=SIZE // 2)
    small = [Span(file=shelf, begin=n * SIZE, end=n * SIZE + 1) for n in range(10)]
    # Codes and scales of three weights, the scales before or behind.
    order = [shelf.span(0), small[1], small[2], shelf.span(3), small[4], shelf.span(5), small[6]]
    ahead.expect(order)
    ahead.get(order[0])
    for _ in range(5):
        assert shelf.came.acquire(timeout=5)
    assert sorted(shelf.asked) == [0, 1, 2, 3, 4]
    for span in order:
        ahead.get(span)
        ahead.release(span)
    assert sorted(shelf.asked) == [0, 1, 2, 3, 4, 5, 6]
    assert ahead._held == {}


def test_of_small_ones_a_few_are_ahead(shelf: Shelf) -> None:
    ahead = LookAhead()
    spans = [Span(file=shelf, begin=n, end=n + 1) for n in range(30)]
    ahead.expect(spans)
    ahead.get(spans[0])
    assert len(ahead._held) == 9


def test_what_was_not_expected_comes_too(shelf: Shelf) -> None:
    ahead = LookAhead()
    assert (ahead.get(shelf.span(7)) == 7).all()
    ahead.release(shelf.span(7))
    assert (ahead.get(shelf.span(7)) == 7).all()
    assert shelf.asked == [7, 7]


def test_what_was_expected_and_skipped_is_not_kept(shelf: Shelf) -> None:
    ahead = LookAhead()
    ahead.expect([shelf.span(number) for number in range(4)])
    ahead.get(shelf.span(0))
    ahead.get(shelf.span(3))
    assert {span.begin // SIZE for span in ahead._held} == {0, 3}


def test_one_span_expected_twice_comes_twice(shelf: Shelf) -> None:
    ahead = LookAhead()
    ahead.expect([shelf.span(1), shelf.span(1), shelf.span(2)])
    for number in (1, 1, 2):
        assert (ahead.get(shelf.span(number)) == number).all()
        ahead.release(shelf.span(number))
    assert sorted(shelf.asked) == [1, 1, 2]


def test_a_failure_ahead_is_raised_when_it_is_its_turn() -> None:
    shelf = Shelf(broken=frozenset({1}))
    shelf.gate.set()
    ahead = LookAhead()
    ahead.expect([shelf.span(0), shelf.span(1)])
    assert (ahead.get(shelf.span(0)) == 0).all()
    with pytest.raises(TransferError, match="1 is broken"):
        ahead.get(shelf.span(1))


def test_a_tensor_larger_than_memory_is_an_error_with_its_size(shelf: Shelf) -> None:
    with pytest.raises(TransferError, match="does not fit in memory"):
        LookAhead().get(replace(shelf.span(0), end=1 << 60))


def test_bytes_are_counted_against_what_is_expected(shelf: Shelf) -> None:
    told: list[tuple[int, int]] = []
    ahead = LookAhead(lambda came, expected: told.append((came, expected)))
    ahead.expect([shelf.span(0), shelf.span(1)])
    for number in (0, 1):
        ahead.get(shelf.span(number))
    assert told[-1] == (2 * SIZE, 2 * SIZE)


def test_the_answer_cannot_be_written_to(shelf: Shelf) -> None:
    data = LookAhead().get(shelf.span(3))
    with pytest.raises(ValueError, match="read-only"):
        data[0] = np.uint8(1)


def test_closing_ends_what_is_on_its_way() -> None:
    shelf = Shelf()
    ahead = LookAhead()
    raised: list[BaseException] = []

    def wait_for_it() -> None:
        try:
            ahead.get(shelf.span(0))
        except TransferError as error:
            raised.append(error)

    waiting = threading.Thread(target=wait_for_it)
    waiting.start()
    assert shelf.came.acquire(timeout=5)
    ahead.close()
    shelf.gate.set()
    waiting.join(5)
    assert len(raised) == 1
