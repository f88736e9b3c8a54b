"""A compression as a page. Pure."""

from collections.abc import Mapping

from gradience.compress.records import Compression
from gradience.page import Page, Table, Text, number, percent
from gradience.units import format_size


def page(done: Compression, *, top: int) -> Page:
    """What was made, what it costs, and the modules that lose most."""
    lines: list[Text | Table] = [
        Text(text=f"{done.source} -> {done.output}", tone="title"),
        Text(
            text=f"{done.asked}: {len(done.ranks)} modules, rank {_span(done.ranks_before)} -> "
            f"{_span(done.ranks)}"
        ),
        Text(
            text=f"file {format_size(done.nbytes_before)} -> {format_size(done.nbytes)} "
            f"({percent(done.nbytes / done.nbytes_before)}); factors "
            f"{format_size(done.factor_bytes_before)} -> {format_size(done.factor_bytes)}"
        ),
        *_error(done),
    ]
    cut = done.ranks != done.ranks_before
    if not cut and done.factor_bytes == done.factor_bytes_before:
        lines.append(
            Text(text=f"Nothing is smaller: every module meets {done.asked} already.", tone="warn")
        )
    if done.predicted and cut:
        lines.append(_worst(done, top))
    if not done.written:
        lines.append(Text(text="Nothing was written (--dry-run).", tone="dim"))
    return tuple(lines)


def _span(ranks: Mapping[str, int]) -> str:
    low, high = min(ranks.values()), max(ranks.values())
    return f"{high}" if low == high else f"{low} to {high}"


def _error(done: Compression) -> tuple[Text, ...]:
    if done.relative_error is None:
        return (Text(text="error of dW: not known; its factors alone do not give it", tone="warn"),)
    said = f"error of dW as stored: {percent(done.relative_error)}"
    if done.predicted_error is not None:
        said += f"; predicted from the singular values: {percent(done.predicted_error)}"
    note = "It is the error of the change, not of the model: `gradience bench` tests that."
    return Text(text=said), Text(text=note, tone="dim")


def _worst(done: Compression, top: int) -> Table:
    ordered = sorted(done.predicted, key=lambda name: -done.predicted[name])
    return Table(
        title="Modules that lose most",
        head=("module", "rank before", "rank", "error of dW"),
        rows=tuple(
            (
                name,
                number(done.ranks_before[name]),
                number(done.ranks[name]),
                percent(done.predicted[name]),
            )
            for name in ordered[:top]
        ),
        note=f"{len(ordered)} in all: --top shows more." if len(ordered) > top else "",
    )
