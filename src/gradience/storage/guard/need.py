"""How much a checkpoint takes, and whether a run can start: pure arithmetic."""

from dataclasses import dataclass

from gradience.storage.guard.records import Need
from gradience.units import format_size, plural

_MARGIN_BYTES = 2**20  # metadata, the log of the run, a model card
_MARGIN_PART = 50
_WHOLE_INODES = 24
_SMALLEST_INODES = 12
_TOKEN_BYTES = 120  # of tokenizer.json, per token of the vocabulary
_STATE_BYTES = 200_000  # trainer_state, random and scheduler states, arguments, config


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What of a model is in memory and goes into a checkpoint, in bytes.

    Attributes
    ----------
    saved : int
        Weights of a whole checkpoint: of the model, or of the adapter.
    trained : int
        Weights that training changes.
    optimizer : int
        State of the optimizer; a forecast until it made its first step.
    tokens : int
        Entries of the tokenizer that is saved along.
    """

    saved: int
    trained: int
    optimizer: int
    tokens: int = 0


def whole(weights: Weights, *, only_model: bool = False) -> Need:
    """A checkpoint as the Trainer writes it."""
    optimizer = 0 if only_model else weights.optimizer
    size = weights.saved + optimizer + weights.tokens * _TOKEN_BYTES + _STATE_BYTES
    return Need(bytes=with_margin(size), inodes=_WHOLE_INODES)


def smallest(weights: Weights, *, only_model: bool = False) -> Need:
    """The least from which a resume goes on exactly: what training changed, and its state."""
    size = weights.trained + (0 if only_model else weights.optimizer) + _STATE_BYTES
    return Need(bytes=with_margin(size), inodes=_SMALLEST_INODES)


def as_measured(nbytes: int, inodes: int) -> Need:
    """What the next checkpoint takes, from one that was written."""
    return Need(bytes=with_margin(nbytes), inodes=inodes + 4)


def with_margin(nbytes: int) -> int:
    """A little more, for what cannot be foreseen to the byte."""
    return nbytes + nbytes // _MARGIN_PART + _MARGIN_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Whether a run can start, with the arithmetic.

    Attributes
    ----------
    refused : bool
        It could not end with a checkpoint, or not with a second one.
    tight : bool
        It can, but not with all the checkpoints that it would like to keep.
    lines : tuple of str
        The arithmetic.
    brief : str
        The same in one line, for a run that has room.
    """

    refused: bool
    tight: bool
    lines: tuple[str, ...]
    brief: str = ""


def least(need: Need, *, saves: int, complete: int) -> Need:
    """What a run must be able to write: the new checkpoint is complete before the old one goes.

    Parameters
    ----------
    need : Need
        Of one whole checkpoint.
    saves, complete : int
        How often the run will save, and the complete checkpoints that are there already.
    """
    size = need.bytes * max(1, min(2, saves) - min(1, complete))
    return Need(bytes=size, inodes=need.inodes)


def judge_start(
    *,
    need: Need,
    reserve: Need,
    room: int | None,
    limit_name: str,
    free_inodes: int | None,
    saves: int,
    keeps: int | None,
    complete: int,
    rotatable_bytes: int,
) -> Start:
    """Hold what a run will write against what can be written.

    Parameters
    ----------
    need, reserve : Need
        Of one whole checkpoint, and of the smallest form, which is held back for the last save.
    room : int, optional
        Bytes that can be written; None where nothing says so.
    saves : int
        How often the run will save.
    keeps : int, optional
        `save_total_limit`, and one more where the best is kept.
    complete, rotatable_bytes : int
        Complete checkpoints that are there already, and what some of them could give.
    """
    together = saves if keeps is None else min(saves, keeps + 1)
    at_least = least(need, saves=saves, complete=complete).bytes
    wished = need.bytes * max(1, together) + reserve.bytes
    lines = [
        f"One checkpoint takes {format_size(need.bytes)}; the run saves "
        f"{plural(saves, 'time')} and holds {together} at once: "
        f"{format_size(need.bytes * max(1, together))}.",
        f"The reserve for a last save takes {format_size(reserve.bytes)}: "
        f"{format_size(wished)} in all, {format_size(at_least)} at least.",
    ]
    known = (
        "What can be written there is not known."
        if room is None
        else f"{format_size(room)} can be written ({limit_name})."
    )
    lines.append(known)
    if rotatable_bytes:
        lines.append(f"Older checkpoints there could give {format_size(rotatable_bytes)}.")
    inodes = need.inodes + reserve.inodes
    few = free_inodes is not None and free_inodes < inodes
    if few:
        lines.append(f"{inodes} files must be made, and {free_inodes} can be.")
    available = None if room is None else room + rotatable_bytes
    return Start(
        refused=few or (available is not None and available < at_least),
        tight=available is not None and available < wished,
        lines=tuple(lines),
        brief=f"{plural(saves, 'save')} of {format_size(need.bytes)}, {together} at once, and "
        f"{format_size(reserve.bytes)} held back for a last one: {format_size(wished)}. {known}",
    )
