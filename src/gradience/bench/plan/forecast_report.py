"""A forecast as a page. Pure."""

from gradience.bench.plan.forecast import Forecast, Power, Row
from gradience.page import Page, Table, Text, count, percent
from gradience.units import format_seconds, format_size, plural


def page(forecast: Forecast) -> Page:
    """The page of `gradience bench --dry-run`."""
    trials = sum(row.trials for row in forecast.rows)
    done = sum(row.done for row in forecast.rows)
    parts: list[Text | Table] = [
        Text(text=forecast.name, tone="title"),
        Text(
            text=f"{trials} trials, {done} of them done; {forecast.slots} at a time on "
            f"{forecast.device}. The adapter changes {forecast.modules} weights, with "
            f"{count(forecast.per_rank)} parameters for each unit of rank."
        ),
        Table(
            title="",
            head=("variant", "action", "trials", "done", "kept", "peak", "time"),
            rows=tuple(_row(row) for row in forecast.rows),
            left=frozenset({0, 1}),
            note="Bytes and time of one trial.",
        ),
        Text(text=total(forecast)),
    ]
    parts += _budget(forecast)
    if forecast.power is not None:
        parts.append(_power(forecast.power))
    if forecast.refused:
        parts.append(
            Text(
                text=f"{len(forecast.refused)} results of other software do not count: "
                + "; ".join(sorted(set(forecast.refused.values()))[:3]),
                tone="warn",
            )
        )
    parts += [Text(text=f"The report will say: {note}", tone="warn") for note in forecast.history]
    parts += [Text(text=f"Not known. {told}", tone="dim") for told in forecast.unknown]
    return tuple(parts)


def _row(row: Row) -> tuple[str, ...]:
    most = "" if row.exact else "<= "
    return (
        row.variant,
        row.action,
        str(row.trials),
        str(row.done),
        "-" if row.kept is None else most + format_size(row.kept),
        "-" if row.peak is None else most + format_size(row.peak),
        "-" if row.seconds is None else format_seconds(row.seconds),
    )


def total(forecast: Forecast) -> str:
    """Bytes and time of the whole, in two sentences."""
    exact = all(row.exact for row in forecast.rows)
    kept = (
        "an unknown number of bytes"
        if forecast.kept is None
        else ("" if exact else "at most ") + format_size(forecast.kept)
    )
    budget = "" if forecast.budget is None else f" (budget {format_size(forecast.budget)})"
    time = "unknown" if forecast.seconds is None else f"about {format_seconds(forecast.seconds)}"
    return f"All trials keep {kept}{budget}. Time for what is left: {time}."


def _budget(forecast: Forecast) -> list[Text]:
    if forecast.budget is None:
        return []
    if forecast.over:
        return [
            Text(
                text=f"It does not fit: one trial alone writes {format_size(forecast.over)} more "
                "than the budget. Raise disk_budget.",
                tone="warn",
            )
        ]
    if not forecast.removed:
        return []
    told = ", ".join(f"{name} ({number})" for name, number in forecast.removed.items())
    return [
        Text(
            text=f"To stay in the budget, about these adapters are removed on the way: {told}. "
            "Scores, records and logs stay.",
            tone="warn",
        )
    ]


def _power(power: Power) -> Text:
    enough = power.power >= power.asked
    told = (
        f"Power: {percent(power.power)} for the test to pass a variant that loses nothing, with "
        f"{power.items} items and {plural(power.seeds, 'seed')} at a level of {power.level:.3g}"
        f"{_shared(power)}, if {percent(power.discordance)} of the answers differ, "
        f"{percent(power.persistent_share)} of that with every seed, and seeds differ by "
        f"{percent(power.seed_sd)}."
    )
    if enough:
        return Text(text=told, tone="good")
    doubt = (
        "One seed shows nothing about another, so nothing can be SAFE: name three seeds or more."
        if power.seeds == 1
        else f"Below the {percent(power.asked)} that SAFE asks for, the verdict is likely to be "
        "UNDERPOWERED: add test items first, then seeds."
    )
    return Text(text=f"{told} {doubt}", tone="warn")


def _shared(power: Power) -> str:
    """Of what the level is a part; nothing where it is the whole."""
    parts = ((power.looks, "looks"), (power.ladders, "ladders"))
    named = " and ".join(f"{count} {name}" for count, name in parts if count > 1)
    return f" (that of the claim, shared by {named})" if named else ""
