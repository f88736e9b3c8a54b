"""What came of each item of a plan, as its acts are done one by one."""

from collections import defaultdict
from dataclasses import dataclass, field

from gradience.files.below import Removed
from gradience.storage.change.records import Action, Outcome, Plan, State


@dataclass(slots=True)
class _Tally:
    freed: int = 0
    names: int = 0
    undone: bool = False
    failed: bool = False
    gone: set[str] = field(default_factory=set)  # by act; the trash counts no names
    reasons: dict[str, None] = field(default_factory=dict)

    @property
    def state(self) -> State:
        """The worst that happened."""
        if self.failed:
            return "failed"
        if self.undone and not self.gone:
            return "undone"
        return "skipped" if self.undone or self.reasons else "done"


class Tallies:
    """A tally per item."""

    def __init__(self) -> None:
        self._of: dict[int, _Tally] = defaultdict(_Tally)

    def count(self, action: Action, removed: Removed) -> None:
        """Something went."""
        tally = self._of[action.item]
        tally.gone.add(action.where)
        tally.freed += removed.bytes
        tally.names += removed.names

    def stayed(self, action: Action, why: str) -> None:
        """It stayed as it was."""
        self._of[action.item].reasons[f"{action.where}: {why}"] = None

    def failed(self, action: Action, why: str) -> None:
        """The file system refused."""
        self._of[action.item].failed = True
        self.stayed(action, why)

    def undone(self, action: Action, back: Removed) -> None:
        """It was done, and put back; what is there again of what was counted."""
        tally = self._of[action.item]
        tally.undone = True
        tally.gone.discard(action.where)
        tally.freed -= back.bytes
        tally.names -= back.names

    def outcomes(self, plan: Plan) -> tuple[Outcome, ...]:
        """What came of every item."""
        return tuple(
            Outcome(
                item=index,
                name=item.name,
                kind=item.kind,
                what=item.what,
                state=self._of[index].state,
                freed=self._of[index].freed,
                names=self._of[index].names,
                reasons=tuple(self._of[index].reasons),
            )
            for index, item in enumerate(plan.items)
        )
