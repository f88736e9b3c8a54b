"""The screen itself: a table of Textual's. Imported only where it is shown."""

from collections.abc import Sequence
from typing import ClassVar

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import DataTable, Footer, Header

from gradience.cli.cache_pick import row
from gradience.storage.change.candidates import Candidate
from gradience.units import format_size

_HEAD = ("", "name", "kind", "what", "frees", "last used", "refs", "to have it back")


class PickScreen(App[tuple[Candidate, ...]]):
    """A table to mark things in; its result is what was marked.

    Parameters
    ----------
    found : sequence of Candidate
    now : float
        Seconds since 1970, for ages.
    """

    TITLE = "gradience cache clean"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "mark", "mark"),
        Binding("s", "sort('size')", "by size"),
        Binding("a", "sort('age')", "by age"),
        Binding("n", "sort('name')", "by name"),
        Binding("enter", "done", "show the plan", priority=True),
        Binding("q,escape", "leave", "leave"),
    ]

    def __init__(self, found: Sequence[Candidate], now: float) -> None:
        super().__init__()
        self.found = list(found)
        self.now = now
        self.marked: dict[int, None] = {}

    def compose(self) -> ComposeResult:
        """The parts of the screen."""
        yield Header()
        yield DataTable(cursor_type="row", zebra_stripes=True)
        yield Footer()

    def on_mount(self) -> None:
        """Fill the table, the largest first."""
        self.table.add_columns(*_HEAD)
        self.action_sort("size")

    @property
    def table(self) -> DataTable[str]:
        """The table."""
        found: DataTable[str] = self.query_one(DataTable)
        return found

    def action_sort(self, by: str) -> None:
        """Sort, and keep the marks."""
        marked = {id(self.found[index]) for index in self.marked}
        order = {
            "size": lambda c: -c.frees_bytes,
            "age": lambda c: c.entry.last_used or float("inf"),
            "name": lambda c: c.name.casefold(),
        }
        self.found.sort(key=order[by])
        self.marked = {i: None for i, c in enumerate(self.found) if id(c) in marked}
        self.table.clear()
        for index, candidate in enumerate(self.found):
            self.table.add_row(*row(candidate, self.now, marked=index in self.marked))
        self._total()

    def action_mark(self) -> None:
        """Mark the row of the cursor, or take its mark away."""
        index = self.table.cursor_row
        if not 0 <= index < len(self.found):
            return
        if index in self.marked:
            del self.marked[index]
        else:
            self.marked[index] = None
        mark = "x" if index in self.marked else " "
        self.table.update_cell_at(self.table.cursor_coordinate._replace(column=0), mark)
        self.table.action_cursor_down()
        self._total()

    def _total(self) -> None:
        size = sum(self.found[index].frees_bytes for index in self.marked)
        # What they share is counted when the plan is made.
        self.sub_title = f"{len(self.marked)} marked, {format_size(size)} or more"

    def action_done(self) -> None:
        """Leave with what was marked."""
        self.exit(tuple(self.found[index] for index in self.marked))

    def action_leave(self) -> None:
        """Leave with nothing."""
        self.exit(())
