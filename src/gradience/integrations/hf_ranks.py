"""The processes of one training run: the first one decides, all do the same."""

from collections.abc import Callable
from typing import TypeVar

from gradience.errors import StorageError

T = TypeVar("T")


def cannot_agree(count: int) -> bool:
    """Whether these are several and cannot tell one another: XLA's, SageMaker's model parallel."""
    if count == 1:
        return False
    import torch.distributed as dist  # noqa: PLC0415 - several processes have it loaded

    return not (dist.is_available() and dist.is_initialized())


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
        """The answer of the first process, in all of them.

        Raises
        ------
        StorageError
            In the others, where the first one had no answer: there its own error goes on.
        """
        if not self.several:
            return ask()
        import torch.distributed as dist  # noqa: PLC0415 - as above

        answer: T | None = None
        failed: Exception | None = None
        if self.first:
            try:
                answer = ask()
            except Exception as error:  # noqa: BLE001 - raised again, once the others know
                failed = error
        # As words: not every error survives being pickled.
        why = f"{type(failed).__name__}: {failed}" if failed else ""
        told: list[tuple[T | None, str]] = [(answer, why)]
        dist.broadcast_object_list(told, src=0)
        answer, why = told[0]
        if failed is not None:
            raise failed
        if why:
            raise StorageError(
                f"the first process, which decides for all, could not: {why}",
                remedy="See the log of that process; this one ended with it.",
            )
        return answer  # type: ignore[return-value]

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
