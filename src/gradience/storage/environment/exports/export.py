"""What an export is: a layout as text that one program reads, every value quoted for it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from gradience.storage.environment.layout import Layout

Where = Literal["here", "elsewhere"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """One format.

    Attributes
    ----------
    title : str
        What reads it.
    render : callable
        Layout to text with a final newline. Raises `UsageError` for a value that the format cannot
        carry.
    where : str
        `here`: for processes on this machine, so directories are created; `elsewhere`: for an
        image, a pod or a unit, whose disks are not those of this machine.
    usage : str
        One line: what to do with the text.
    platform : str
        Key of `PLATFORMS` that the text is for where none is named; empty: the detected one.
    """

    name: str
    title: str
    render: Callable[[Layout], str]
    usage: str
    where: Where = "here"
    platform: str = ""


def comments(layout: Layout, prefix: str = "# ") -> Iterator[str]:
    """Comment lines for the head of a text."""
    for sentence in layout.comments:
        yield prefix + one_line(sentence)


def one_line(text: str) -> str:
    """A sentence that cannot end its comment: control characters and line ends are spaces."""
    return "".join(c if c.isprintable() else " " for c in text)


def posix_quoted(value: str) -> str:
    """A value for any POSIX shell, always in single quotes: nothing inside is special.

    Examples
    --------
    >>> print(posix_quoted("/a b/it's"))
    '/a b/it'"'"'s'
    """
    return "'" + value.replace("'", "'\"'\"'") + "'"


def yaml_quoted(value: str) -> str:
    r"""A YAML double-quoted scalar; what YAML calls unprintable is escaped.

    Examples
    --------
    >>> print(yaml_quoted('/a "b"\\c'))
    "/a \"b\"\\c"
    """
    return '"' + "".join(_yaml_character(c) for c in value) + '"'


def _yaml_character(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    return character if character.isprintable() else f"\\U{ord(character):08X}"
