"""What was chosen for one machine, as records: the layout, and what it would leave behind."""

from dataclasses import dataclass
from pathlib import Path

from gradience.storage.environment.layout import Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftBehind:
    """One cache that the new layout does not see.

    Attributes
    ----------
    places : tuple of str
        What lies there, by the names of `resolve()`.
    old, new : Path
    bytes : int
        Physical size: each inode once, blocks as allocated.
    commands : tuple of str
        How to move it; empty where that is to be done by hand, or it does not fit.
    missing_bytes : int
        What the other disk lacks to take it; 0 where it fits.
    by_hand : str
        Why no command moves it; "" where one does.
    """

    places: tuple[str, ...]
    old: Path
    new: Path
    bytes: int
    commands: tuple[str, ...]
    missing_bytes: int = 0
    by_hand: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """A layout and what should be said beside it.

    Attributes
    ----------
    layout : Layout
    reason : str
        One sentence on the choice.
    here : bool
        Whether the root is a place of this machine, so that directories may be made.
    left_behind : tuple of LeftBehind
        Caches with content that the layout does not see; empty for text for another machine.
    notes : tuple of str
        For the reader, not for the text.
    """

    layout: Layout
    reason: str
    here: bool
    left_behind: tuple[LeftBehind, ...]
    notes: tuple[str, ...]
