"""A verification as a page to read. Pure."""

from collections.abc import Iterator

from gradience.page import Page, Table, Text
from gradience.storage.verify.records import PROBLEMS, Verification
from gradience.units import format_size, plural

_AGAIN = (
    "Delete what is wrong and download it again: `hf download REPO --force-download` replaces it."
)


def page(found: Verification) -> Page:
    """What the terminal shows: the verdict, each problem, and what could not be checked."""
    return (
        *_headline(found),
        *_problems(found),
        *_partial(found),
        *_unchecked(found),
    )


def _headline(found: Verification) -> Iterator[Text]:
    if not found.roots:
        yield Text(text="No hub cache and no local_dir download is there to check.")
        return
    wrong = len(found.problems)
    if not wrong and not found.files and found.unchecked_count:
        yield Text(text="Nothing could be checked", tone="warn")
    else:
        sound = "Everything that can be checked is as it should be"
        yield Text(
            text=plural(wrong, "problem") if wrong else sound, tone="bad" if wrong else "good"
        )
    hashed = (
        f"{found.by_hash} hashed ({format_size(found.bytes_read)} read)"
        if found.deep
        else "none hashed: --deep reads and hashes them"
    )
    yield Text(
        text=f"{plural(found.files, 'file')}: {found.by_size} held against a size, {hashed}.",
        tone="dim",
    )


def _problems(found: Verification) -> Iterator[Text | Table]:
    if not found.problems:
        return
    yield Table(
        title="Not as it should be",
        head=("repo", "problem", "file", "found"),
        rows=tuple(
            (p.owner, p.code, p.names[0] if p.names else p.path, p.message) for p in found.problems
        ),
        left=frozenset({0, 1, 2, 3}),
        note=_AGAIN,
    )
    for code in dict.fromkeys(p.code for p in found.problems):
        yield Text(text=f"{code}: {PROBLEMS[code]}", tone="dim")


def _partial(found: Verification) -> Iterator[Text]:
    if found.partial:
        missing = sum(found.partial.values())
        yield Text(
            text=f"{plural(len(found.partial), 'snapshot')} with only some files of the commit "
            f"({missing} never downloaded): no damage.",
            tone="dim",
        )


def _unchecked(found: Verification) -> Iterator[Text]:
    if not found.unchecked_count:
        return
    yield Text(text=f"{plural(found.unchecked_count, 'path')} could not be checked:", tone="warn")
    for one in found.unchecked[:3]:
        yield Text(text=f"  {one.path}: {one.reason}", tone="dim")
