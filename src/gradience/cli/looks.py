"""What is looked at again and again, in the form that the reader has use for.

A script reads JSON, a person at a terminal a page that is drawn over itself, a log plain lines.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

import click

from gradience.cli.visible import visible
from gradience.page import Page

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Forms(Generic[T]):
    """The forms of one look.

    Attributes
    ----------
    json : callable
        An artifact; empty where the look brought nothing new.
    page : callable
    lines : callable
    """

    json: Callable[[T], bytes]
    page: Callable[[T], Page]
    lines: Callable[[T], Iterable[str]]


@contextmanager
def shown(forms: Forms[T], *, as_json: bool, page_once: bool) -> Iterator[Callable[[T], None]]:
    """A function that shows a look.

    Parameters
    ----------
    forms : Forms
    as_json : bool
        JSON, whatever reads it.
    page_once : bool
        A page that stays; else one that is drawn over itself, or lines where no terminal is.
    """
    if as_json:
        yield lambda look: _print_json(forms.json(look))
    elif page_once:
        from gradience.cli.render import show  # noqa: PLC0415 - rich: 50 ms a pipe need not pay

        yield lambda look: show(forms.page(look))
    elif sys.stdout.isatty():
        from gradience.cli.live import live_page  # noqa: PLC0415 - as above

        with live_page() as draw:
            yield lambda look: draw(forms.page(look))
    else:
        yield lambda look: _print_lines(forms.lines(look))


def _print_json(artifact: bytes) -> None:
    if artifact:
        click.echo(artifact.rstrip(b"\n"))


def _print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(visible(line))
    sys.stdout.flush()  # a log is read while it grows
