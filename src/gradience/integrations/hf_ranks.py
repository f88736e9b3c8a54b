"""The processes of one training run: the first one decides, all do the same."""

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Ranks:
    """This process among those of the run.

    Parameters
    ----------
    count : int
    first : bool
        Whether this is the one that writes and decides.
    """

    def __init__(self, count: int = 1, *, first: bool = True) -> None:
        self.several = count > 1
        self.first = first
        self._count = count

    def agreed(self, ask: Callable[[], T]) -> T:
        """The answer of the first process, in all of them."""
        if not self.several:
            return ask()
        import torch.distributed as dist  # noqa: PLC0415 - several processes have it loaded

        answer: list[T | None] = [ask() if self.first else None]
        dist.broadcast_object_list(answer, src=0)
        return answer[0]  # type: ignore[return-value]

    def all(self, ok: bool) -> bool:
        """Whether it went well in every process."""
        if not self.several:
            return ok
        import torch.distributed as dist  # noqa: PLC0415 - as above

        answers: list[bool | None] = [None] * self._count
        dist.all_gather_object(answers, ok)
        return all(answers)

    def wait(self) -> None:
        """Until all are here; before the processes know of one another, nothing happens."""
        if self.several:
            import torch.distributed as dist  # noqa: PLC0415 - as above

            if dist.is_initialized():
                dist.barrier()
