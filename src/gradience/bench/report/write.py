"""bench.json, bench.md and bench.html in the directory of a bench."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from gradience import artifacts, files
from gradience.bench.records import REPORT_SCHEMA, BenchReport
from gradience.bench.report.markdown import markdown
from gradience.bench.report.page import full_page
from gradience.errors import MissingExtraError


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """Files that were written, and the sentence why the page is not among them."""

    paths: tuple[Path, ...]
    missing: str = ""


def write(report: BenchReport, directory: Path, *, now: datetime) -> Written:
    """Write the three forms of the report; without the `html` extra the first two.

    Raises
    ------
    StorageError
        If the disk refuses.
    """
    from gradience.bench.report.html import render  # noqa: PLC0415 - charts, for the page alone

    json, text, page = (directory / f"bench.{form}" for form in ("json", "md", "html"))
    files.replace(json, artifacts.encode(REPORT_SCHEMA, report, now=now))
    files.replace(text, markdown(full_page(report)).encode())
    try:
        files.replace(page, render(report, now=now).encode())
    except MissingExtraError as error:
        files.remove(page)  # one of an earlier run would contradict the other two
        return Written(paths=(json, text), missing=f"no {page.name}: {error}; {error.remedy}")
    return Written(paths=(json, text, page))
