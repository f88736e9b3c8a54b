"""Rows of a data source: a local table, JSON lines, or a dataset of the Hub.

A `.tsv` is split at tabs and nothing is quoted (GLUE's form), a `.csv` is quoted as spreadsheets
do it, a `.jsonl` has an object per line. The first line of a table names its columns, unless the
task's option `columns` does, for files without a header.
"""

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradience.errors import UnreadableError, UsageError, of_an_extra

Row = Mapping[str, Any]

_HUB = "hub:"
_HUB_NAME = re.compile(
    r"hub:(?P<path>[^@#:]+)(?:@(?P<revision>[^#:]+))?(?:#(?P<config>[^:]+))?:(?P<split>.+)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HubName:
    """A split of a dataset of the Hub: `hub:org/name[@revision][#config]:split`."""

    path: str
    revision: str | None
    config: str | None
    split: str


def is_hub(name: str) -> bool:
    """Whether a source is a dataset of the Hub, not a local file."""
    return name.startswith(_HUB)


def parse_hub(name: str) -> HubName:
    """Read `hub:org/name[@revision][#config]:split`.

    Raises
    ------
    UsageError

    Examples
    --------
    >>> parse_hub("hub:nyu-mll/glue#sst2:validation").config
    'sst2'
    """
    found = _HUB_NAME.fullmatch(name)
    if found is None:
        raise UsageError(
            f"{name!r} does not name a split of a Hub dataset",
            remedy="Write hub:org/name[@revision][#config]:split, "
            "such as hub:nyu-mll/glue#sst2:validation.",
        )
    return HubName(**found.groupdict())


def rows_of(names: Iterable[str], columns: Sequence[str] = ()) -> list[Row]:
    """All rows of some sources, in order.

    Parameters
    ----------
    names : iterable of str
    columns : sequence of str
        Names for the columns of tables without a header.

    Raises
    ------
    UnreadableError
        If a file cannot be read as what its ending says, with the line.
    MissingExtraError
        If a Hub dataset is named and `datasets` is not installed.
    """
    return [row for name in names for row in _rows(name, columns)]


def files_of(names: Iterable[str]) -> dict[str, Path]:
    """The files behind some sources, by the name in the settings; of the Hub, their cached tables.

    Raises
    ------
    UsageError
        If two sources have one name.
    """
    found: dict[str, Path] = {}
    for name in names:
        if name in found:
            raise UsageError(f"{name} is named twice", remedy="Name each data source once.")
        if not is_hub(name):
            found[name] = Path(name).expanduser()
            continue
        tables = [Path(file["filename"]) for file in _dataset(name).cache_files]
        found |= {name if i == 0 else f"{name}[{i}]": path for i, path in enumerate(tables)}
    return found


def column(rows: Sequence[Row], name: str, *, source: str) -> list[Any]:
    """One column of all rows.

    Raises
    ------
    UnreadableError
        Names the row and the columns that it has.
    """
    for number, row in enumerate(rows, start=1):
        if row.get(name) is None:
            raise UnreadableError(
                f"{source}: row {number} has no {name!r}; it has {', '.join(map(repr, row))}",
                remedy="Name the column in `task.options`, and the columns of a file without a "
                "header in `task.options.columns`.",
            )
    return [row[name] for row in rows]


def items_columns(
    rows: Sequence[Row], id_column: str | None, cluster_column: str | None, *, source: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Ids and clusters of test items: by column, or the running number from 0, and none.

    Raises
    ------
    UnreadableError
        If an id occurs twice.
    """
    ids = tuple(
        map(str, range(len(rows)) if id_column is None else column(rows, id_column, source=source))
    )
    if len(set(ids)) < len(ids):
        twice = next(i for n, i in enumerate(ids) if i in ids[:n])
        raise UnreadableError(
            f"{source}: the id {twice!r} occurs twice", remedy="Give every test item its own id."
        )
    if cluster_column is None:
        return ids, ()
    return ids, tuple(map(str, column(rows, cluster_column, source=source)))


def _rows(name: str, columns: Sequence[str]) -> Iterator[Row]:
    if is_hub(name):
        yield from _dataset(name)
        return
    path = Path(name).expanduser()
    suffix = path.suffix.lower()
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if suffix == ".jsonl":
                yield from _json_lines(file, name)
            elif suffix == ".tsv":
                lines = (line.rstrip("\r\n").split("\t") for line in file)
                yield from _table(lines, columns, name)
            elif suffix == ".csv":
                yield from _table(csv.reader(file, strict=True), columns, name)
            else:
                raise UnreadableError(
                    f"{name} ends in {suffix!r}", remedy="Give a .tsv, .csv or .jsonl file."
                )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UnreadableError(
            f"{name} cannot be read: {error}", remedy="Check the file; text must be UTF-8."
        ) from error


def _table(lines: Iterable[Sequence[str]], columns: Sequence[str], name: str) -> Iterator[Row]:
    head = list(columns)
    for number, line in enumerate(lines, start=1):
        if not head:
            head = list(line)
        elif line and line != [""]:
            if len(line) != len(head):
                raise UnreadableError(
                    f"{name}, line {number}: {len(line)} columns where there should be "
                    f"{len(head)} ({', '.join(head)})",
                    remedy="Correct the line, or `task.options.columns`.",
                )
            yield dict(zip(head, line, strict=True))


def _json_lines(file: Iterable[str], name: str) -> Iterator[Row]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UnreadableError(
                f"{name}, line {number} is not JSON: {error}", remedy="Write one object per line."
            ) from error
        if not isinstance(row, dict):
            raise UnreadableError(
                f"{name}, line {number} is no object", remedy="Write one object per line."
            )
        yield row


def _dataset(name: str) -> Any:
    hub = parse_hub(name)
    with of_an_extra(
        f"{name} is a dataset of the Hub, and `datasets` is not installed",
        remedy="pip install 'gradience[datasets]'",
    ):
        import datasets  # noqa: PLC0415 - an extra, and a second of imports
    try:
        # From datasets 4 on (the extra asks for it) no code of a dataset is run.
        return datasets.load_dataset(hub.path, hub.config, split=hub.split, revision=hub.revision)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise UnreadableError(
            f"{name} cannot be loaded: {error}",
            remedy="Check name, config and split; offline, load it once with a network first.",
        ) from error
