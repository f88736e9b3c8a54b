"""The two ways of bringing a directory to its new place; the runner does the rest alike.

As a copy that is given its name when it is whole, or poured into the cache that is there.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gradience.storage.change.meter import Progress
from gradience.storage.change.move import ends as state
from gradience.storage.change.move.apart import check_apart
from gradience.storage.change.move.both import Both
from gradience.storage.change.move.copy import Copy, Reached
from gradience.storage.change.move.ends import Ends
from gradience.storage.change.move.plan import check_room, copied_bytes
from gradience.storage.change.move.pour import Pour
from gradience.storage.change.move.tree import Node
from gradience.storage.change.records import text_of

Bring = Callable[[], tuple[str, int]]
"""How the new place differs then, "" if it does not, and bytes of the old disk taken for it."""


class Way(Protocol):
    """How the content comes to the new place."""

    @property
    def merges(self) -> bool:
        """Whether the new place has content of its own, which stays."""
        ...

    @property
    def kept(self) -> str:
        """What became of what was brought where it stopped, for a sentence's end."""
        ...

    @property
    def filled(self) -> str:
        """The same where the disk was full."""
        ...

    def obstacle(self) -> str:
        """Why it cannot go there by now; "" if it can."""
        ...

    def ready(self, nodes: list[Node]) -> Bring:
        """Refuse what does not fit; what brings and compares it.

        Raises
        ------
        StorageError
        """
        ...

    def place(self, top: os.stat_result) -> None:
        """The last before the swap: what was brought is what has the new name.

        Raises
        ------
        OSError, StorageError
        """
        ...

    def stop(self) -> None:
        """It is left, to be gone on with; what no later try needs is forgotten."""
        ...

    def late(self) -> str:
        """Where what was written through a link that is taken back lies, for a sentence's end."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    ends: Ends
    environ: Mapping[str, str]
    home: Path
    progress: Progress | None
    reached: Reached


@dataclass(frozen=True, slots=True, kw_only=True)
class Copying(_Way):
    """Beside the new place, which is free."""

    merges: bool = False
    kept: str = "what is copied is kept, and the same command goes on from there"
    filled: str = "the copy was removed again"

    @property
    def copy(self) -> Copy:
        """The copy, made or gone on with."""
        ends = self.ends
        return Copy(
            source=ends.source,
            top=ends.top,
            target=ends.target,
            staged=ends.copy,
            progress=self.progress,
            reached=self.reached,
        )

    def obstacle(self) -> str:
        """Something has the new name."""
        return "" if self.ends.lacking() else f"something is at {text_of(self.ends.new)} by now"

    def ready(self, nodes: list[Node]) -> Bring:
        """To copy and compare, if all that is not copied yet fits."""
        check_room(self.ends, nodes, self.environ, self.home, copied_bytes(self.ends))
        return lambda: self._bring(nodes)

    def _bring(self, nodes: list[Node]) -> tuple[str, int]:
        self.copy.make(nodes)
        return self.copy.verify(nodes), 0

    def place(self, top: os.stat_result) -> None:
        """Give the copy its name."""
        ends = self.ends
        self.copy.finish_top(top)
        ends.note_copy()
        ends.reach(state.PLACED)
        self.reached("noted")
        ends.make_way()
        ends.target.move(ends.copy, ends.name)
        ends.target.sync_dir()
        self.reached("placed")

    def stop(self) -> None:
        """The copy and its journal are what the next try goes on with."""

    def late(self) -> str:
        """Nothing: where somebody wrote, both places are kept."""
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pouring(_Way):
    """Into a cache of the Hub that is there."""

    merges: bool = True
    kept: str = "what was brought stays, and the same command goes on from there"
    filled: str = "what was brought stays"

    def obstacle(self) -> str:
        """The cache is there no more."""
        there = self.ends.is_dir(self.ends.target, self.ends.name)
        return "" if there else f"{text_of(self.ends.new)} is gone, or no directory any more"

    def ready(self, nodes: list[Node]) -> Bring:
        """To add what is not there, and compare all, if what is to be copied fits."""
        both = Both.of(self.ends, nodes)
        if not both.links:
            check_room(self.ends, both.absent(), self.environ, self.home)
        return lambda: self._bring(both)

    def _bring(self, both: Both) -> tuple[str, int]:
        taken = Pour(both, self.ends.copy, self.progress, self.reached).make()
        return both.verify(self.progress), taken

    def place(self, top: os.stat_result) -> None:
        """It has the new name; only it must be another directory than the old one."""
        check_apart(self.ends)

    def stop(self) -> None:
        """All that a merge needs to go on is what was brought."""
        self.ends.forget()

    def late(self) -> str:
        """In the cache that it led to."""
        return f"; what was written to it in that moment is in {text_of(self.ends.new)}"
