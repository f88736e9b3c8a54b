"""A verification as a page to read. Pure."""

from collections.abc import Iterator

from gradience.bench.report.page import TONES
from gradience.bench.report.verify import Verification
from gradience.page import Page, Text


def page(found: Verification) -> Page:
    """What the terminal shows: whether the report holds, and where it does not."""
    return tuple(_lines(found))


def _lines(found: Verification) -> Iterator[Text]:
    yield Text(text=found.name, tone="title")
    if found.differences:
        count = len(found.differences)
        yield Text(
            text=f"{count} difference{'s' if count > 1 else ''}: bench.json does not hold",
            tone="bad",
        )
        yield from (Text(text=f"  {difference}") for difference in found.differences)
        yield Text(text="Computed again from the trials' own files:")
    else:
        yield Text(
            text=f"bench.json holds: computed again from {found.trials} results, every verdict is "
            "the same",
            tone="good",
        )
    for variant, decision in found.decisions.items():
        yield Text(text=f"  {variant}: {decision}", tone=TONES[decision])
    yield from (Text(text=f"note: {note}", tone="dim") for note in found.notes)
