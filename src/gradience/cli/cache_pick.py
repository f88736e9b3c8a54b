"""The screen of `gradience cache clean --pick`: browse, sort, mark; nothing goes from here."""

from typing import TYPE_CHECKING

from gradience.errors import UsageError, of_an_extra

if TYPE_CHECKING:
    from gradience.storage.change.candidates import Candidate
    from gradience.storage.change.choose import Rule
    from gradience.storage.inventory.take import Survey


def pick(survey: "Survey", min_age: float) -> "tuple[Rule, ...]":
    """Let the user mark things; what was marked, as a rule.

    Raises
    ------
    MissingExtraError
        If Textual is not installed.
    UsageError
        If there is no terminal.
    """
    import sys  # noqa: PLC0415

    from gradience.storage.change.candidates import FOREIGN, candidates  # noqa: PLC0415
    from gradience.storage.change.choose import Rule  # noqa: PLC0415

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("--pick needs a terminal", remedy="Name what to remove instead.")
    with of_an_extra("--pick needs Textual", remedy="pip install 'gradience[pick]'"):
        from gradience.cli.pick_screen import PickScreen  # noqa: PLC0415 - Textual
    found = [c for c in candidates(survey, min_age) if c.what != FOREIGN]
    marked = PickScreen(found, survey.inventory.made).run() or ()
    keys = frozenset(candidate.key for candidate in marked)
    return (Rule(marked=keys, lifts=("pinned", "only_copy")),)


def row(candidate: "Candidate", now: float, *, marked: bool) -> tuple[str, ...]:
    """A thing as a row of the screen."""
    from gradience.cli.visible import visible  # noqa: PLC0415
    from gradience.storage.inventory.report import ago  # noqa: PLC0415
    from gradience.units import format_size  # noqa: PLC0415

    entry = candidate.entry
    used = "-" if entry.last_used is None else ago(max(0.0, now - entry.last_used))
    return (
        "x" if marked else " ",
        visible(candidate.name, longest=80),
        candidate.kind,
        candidate.what,
        format_size(candidate.frees_bytes),
        used,
        ", ".join(entry.refs) if not candidate.junk else "",
        "" if candidate.junk else entry.recoverable,
    )
