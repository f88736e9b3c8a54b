"""A page that is drawn over itself, on a terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text as RichText

from gradience.cli.render import STYLES, drawn_table
from gradience.cli.visible import visible
from gradience.page import Page, Table, Text


@contextmanager
def live_page() -> Iterator[Callable[[Page], None]]:
    """A function that shows a page in the place of the one before; the last one stays."""
    with Live(console=Console(highlight=False), auto_refresh=False) as view:
        yield lambda page: view.update(_drawn(page), refresh=True)


def _drawn(page: Page) -> Group:
    return Group(*(_part(part) for part in page))


def _part(part: Text | Table) -> RenderableType:
    if isinstance(part, Table):
        return drawn_table(part)
    return RichText(visible(part.text), style=STYLES[part.tone])
