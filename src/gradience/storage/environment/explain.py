"""`gradience env --explain`: each variable, what it is for, who reads it when, and what to set."""

from collections.abc import Mapping

import msgspec

from gradience.page import Page, Table, Text
from gradience.storage.environment.records import Environment, LeftBehind
from gradience.storage.environment.variables import VARIABLES, Variable
from gradience.units import format_size

SCHEMA = "gradience.env/v1"

_WHEN = {
    "import": "at import",
    "call": "at each call",
    "session": "when Xet connects",
    "first use": "at first use",
}


class ExplainedVariable(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One variable.

    Attributes
    ----------
    read : str
        `import`, `call`, `session`, `first use` or `nobody`.
    current, recommended : str, optional
        Absent where it is not set, and where the layout leaves it alone.
    why : str
        Reason of the recommendation, or what to know of a variable that is left alone.
    """

    name: str
    purpose: str
    readers: tuple[str, ...]
    read: str
    default: str
    current: str | None = None
    recommended: str | None = None
    why: str = ""


class StrandedCache(msgspec.Struct, frozen=True, kw_only=True):
    """A cache with content that the layout does not see, and commands that move it.

    `missing_bytes`: what the other disk lacks to take it; there are no commands then.
    """

    places: tuple[str, ...]
    old: str
    new: str
    bytes: int
    commands: tuple[str, ...]
    missing_bytes: int = 0


class EnvironmentReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `gradience env --json` writes.

    Attributes
    ----------
    here : bool
        Whether the root is a place of this machine.
    reason : str
        Which hint and which mount decided.
    """

    platform: str
    root: str
    here: bool
    reason: str
    notes: tuple[str, ...]
    values: dict[str, str]
    directories: tuple[str, ...]
    variables: tuple[ExplainedVariable, ...]
    left_behind: tuple[StrandedCache, ...]


def explained(chosen: Environment, environ: Mapping[str, str]) -> tuple[ExplainedVariable, ...]:
    """Every variable of the layout in its order, then every other one of the table."""
    reasons = {setting.name: setting.reason for setting in chosen.layout.settings}
    values = chosen.layout.values
    names = [*values, *(name for name in VARIABLES if name not in values)]
    return tuple(
        ExplainedVariable(
            name=name,
            purpose=VARIABLES[name].purpose,
            readers=VARIABLES[name].readers,
            read=VARIABLES[name].read,
            default=VARIABLES[name].default,
            current=environ.get(name),
            recommended=values.get(name),
            why=reasons.get(name) or _note(VARIABLES[name]),
        )
        for name in names
    )


def report(chosen: Environment, environ: Mapping[str, str]) -> EnvironmentReport:
    """The whole as a record for JSON."""
    return EnvironmentReport(
        platform=chosen.layout.platform,
        root=str(chosen.layout.root),
        here=chosen.here,
        reason=chosen.reason,
        notes=(*chosen.layout.comments[1:], *chosen.notes),
        values=chosen.layout.values,
        directories=chosen.layout.directories,
        variables=explained(chosen, environ),
        left_behind=tuple(
            StrandedCache(
                places=item.places,
                old=str(item.old),
                new=str(item.new),
                bytes=item.bytes,
                commands=item.commands,
                missing_bytes=item.missing_bytes,
            )
            for item in chosen.left_behind
        ),
    )


def page(chosen: Environment, environ: Mapping[str, str]) -> Page:
    """What the terminal shows."""
    variables = explained(chosen, environ)
    mine = [v for v in variables if v.recommended is not None]
    others = [v for v in variables if v.recommended is None]
    return (
        Text(text=chosen.reason, tone="title"),
        *(Text(text=note, tone="dim") for note in chosen.layout.comments[1:]),
        Table(
            title="Where bytes should go",
            head=("variable", "now", "recommended", "why"),
            rows=tuple((v.name, _now(v), _same(v), v.why) for v in mine),
            left=frozenset(range(4)),
        ),
        Table(
            title="Who reads it",
            head=("variable", "holds", "read by", "default"),
            rows=tuple((v.name, v.purpose, _read(v), v.default) for v in mine),
            left=frozenset(range(4)),
        ),
        Table(
            title="Left alone",
            head=("variable", "now", "holds", "read by", "default", "to know"),
            rows=tuple((v.name, _now(v), v.purpose, _read(v), v.default, v.why) for v in others),
            left=frozenset(range(6)),
        ),
    )


def move_notes(gone: tuple[LeftBehind, ...]) -> tuple[str, ...]:
    """Lines that say what would be left behind, and how to move it."""
    if not gone:
        return ()
    total = format_size(sum(item.bytes for item in gone))
    lines = [f"{total} would be left behind, and downloaded again. To move it instead:"]
    for item in gone:
        lines.append(f"  {format_size(item.bytes)} in {item.old} ({', '.join(item.places)})")
        lines += [f"    {command}" for command in item.commands]
        if item.missing_bytes:
            lacking = format_size(item.missing_bytes)
            lines.append(f"    it does not fit: the disk of {item.new} lacks {lacking}")
        elif item.by_hand:
            lines.append(f"    by hand: {item.by_hand}")
    lines.append("  Stop what downloads or trains first.")
    return tuple(lines)


def _read(variable: ExplainedVariable) -> str:
    readers = ", ".join(variable.readers)
    return f"{readers}: {_WHEN[variable.read]}" if readers else "nobody"


def _now(variable: ExplainedVariable) -> str:
    """The current value; an empty one is not the same as none."""
    return "-" if variable.current is None else variable.current or "(empty)"


def _same(variable: ExplainedVariable) -> str:
    return "as now" if variable.current == variable.recommended else variable.recommended or "-"


def _note(variable: Variable) -> str:
    ended = f"Read by nobody since {variable.until}." if variable.until else ""
    began = f"Since {variable.since}." if variable.since else ""
    return " ".join(text for text in (began, ended, variable.note) if text)
