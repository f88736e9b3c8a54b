"""Room for a bench: what is used and free, what may go, and the removing of it.

The rule is `budget`; here is what it is applied to.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from gradience.bench.driver.budget import Books, Part, Worth, worth
from gradience.bench.ledger import Ledger
from gradience.bench.records import PROBE, Trial
from gradience.storage.room.headroom import headroom
from gradience.storage.room.usage import used_below
from gradience.units import format_size

_COUNT_SECONDS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """The disk below an output directory.

    Attributes
    ----------
    ledger : Ledger
    cap : int or None
        Bytes that the directory may hold.
    """

    ledger: Ledger
    cap: int | None

    def used(self) -> int:
        """Bytes on the disk below the output directory."""
        return used_below([self.ledger.root], seconds=_COUNT_SECONDS).bytes

    def size(self, trial_id: str) -> int:
        """Bytes on the disk of one trial."""
        directory = self.ledger.paths(trial_id).directory
        return used_below([directory], seconds=_COUNT_SECONDS).bytes

    def books(self, promised: int) -> Books:
        """What is in use and what may be, now.

        Raises
        ------
        StorageError
            If the disk cannot be looked at.
        """
        free = headroom(self.ledger.root).bytes
        return Books(used=self.used(), promised=promised, cap=self.cap, room=free)

    def removable(
        self, trials: Iterable[Trial], *, busy: Collection[str], needed: Collection[str]
    ) -> list[Part]:
        """What may go, with its size.

        Parameters
        ----------
        trials : iterable of Trial
        busy : collection of str
            Trials that run: nothing of them goes.
        needed : collection of str
            Trials that others start from.
        """
        found = []
        for trial in trials:
            if trial.id in busy:
                continue
            for part, value in _parts(trial, needed=trial.id in needed):
                path = self.ledger.paths(trial.id).directory / part
                size = used_below([path], seconds=_COUNT_SECONDS).bytes
                if size:
                    found.append(Part(trial=trial.id, part=part, nbytes=size, worth=value))
        return found

    def evict(self, parts: Sequence[Part]) -> str:
        """Remove parts of trials and write down that they are gone; says so in a sentence.

        Raises
        ------
        StorageError
            If the disk refuses.
        """
        for part in parts:
            self.ledger.evict(part.trial, part.part, part.nbytes, now=datetime.now(UTC))
        size = format_size(sum(part.nbytes for part in parts))
        what = " and ".join(sorted({part.part for part in parts}))
        return f"Removed {size} for the budget: {what} of {len({p.trial for p in parts})} trials."


def _parts(trial: Trial, *, needed: bool) -> list[tuple[str, Worth]]:
    """The parts of a trial that does not run, as far as they may go."""
    action = trial.spec.variant.action
    kept = [] if needed else [("adapter", worth(action))]
    if action == PROBE and not needed:
        kept = [("step0", Worth.STEP0), *kept]
    return [("work", Worth.SCRATCH), *kept]
