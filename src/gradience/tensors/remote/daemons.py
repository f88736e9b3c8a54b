"""Work in threads that hold back no exit: a stalled server must not keep a stopped process.

The threads of `concurrent.futures` are joined when Python ends, however long they wait.
"""

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

X = TypeVar("X")
Y = TypeVar("Y")


def in_daemons(act: Callable[[X], Y], items: Iterable[X], *, at_once: int) -> "list[Future[Y]]":
    """Do something with each item, a few at a time.

    Returns
    -------
    list of Future
        In the order of the items; each raises what the act raised.

    Examples
    --------
    >>> [found.result() for found in in_daemons(abs, [1, -2, -3], at_once=2)]
    [1, 2, 3]
    """
    todo: deque[tuple[X, Future[Y]]] = deque((item, Future()) for item in items)
    futures = [future for _, future in todo]

    def work() -> None:
        while True:
            try:
                item, future = todo.popleft()
            except IndexError:
                return
            try:
                result = act(item)
            except BaseException as error:  # noqa: BLE001 - raised in the thread that waits for it
                future.set_exception(error)
            else:
                future.set_result(result)

    for _ in range(min(at_once, len(futures))):
        Thread(target=work, daemon=True).start()
    return futures
