"""YAML as people write it: numbers like 1e-4, each key once, and the line of every value.

JSON and TOML are read beside it, by the name of the file; they have no lines.
"""

import itertools
import json
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from gradience.errors import UsageError, shown

_LARGEST_BYTES = 2**20
_MOST_VALUES = 20_000
_LONGEST_SCALAR = 1000  # of what is no text: PyYAML multiplies `1:1:1:...` out
_NO_OBJECTS = ("tag:yaml.org,2002:merge", "tag:yaml.org,2002:value")  # `<<` and `=`, as keys
_MOST_PATHS = 2**22  # characters: aliases of aliases stand for exponentially many values


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, with the floats of YAML 1.2: YAML 1.1 reads `1e-4` as a string.

    It takes bounded time, and what it cannot read is a `YAMLError` with its line.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._values = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._values += 1
        if self._values > _MOST_VALUES:
            raise yaml.composer.ComposerError(
                None, None, f"more than {_MOST_VALUES} values: it is no config", None
            )
        return super().compose_node(parent, index)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        text = "tag:yaml.org,2002:str"
        scalar = isinstance(node, yaml.ScalarNode) and node.tag != text
        try:
            if scalar and len(node.value) > _LONGEST_SCALAR:
                raise ValueError
            return super().construct_object(node, deep)
        except (ValueError, TypeError, AttributeError, LookupError) as error:
            # What PyYAML's constructors raise, by their tag, on `0x_`, 2024-13-45 or `!!bool x`.
            what = node.tag.removeprefix("tag:yaml.org,2002:")
            shown = repr(node.value[:40]) if scalar else "this"
            raise yaml.constructor.ConstructorError(
                None, None, f"{shown} is no {what}; quote it if it is a text", node.start_mark
            ) from error


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z"),
    list("-+.0123456789"),
)


@dataclass(frozen=True, slots=True)
class Document:
    """What a text says.

    Attributes
    ----------
    data : object
        Mappings, lists, texts and numbers; an empty text is an empty mapping.
    lines : mapping of str to int
        Path such as `$.lora.rank` to line, from 1; empty for JSON and TOML.
    head : str
        The comment that a YAML text begins with, as one line.
    """

    data: Any
    lines: Mapping[str, int] = field(default_factory=dict)
    head: str = ""


def read_document(path: Path, *, remedy: str) -> Document:
    """Read a file by its suffix: JSON, TOML, or else YAML.

    Parameters
    ----------
    path : Path
    remedy : str
        What to do about one that cannot be read.

    Raises
    ------
    UsageError
        If it cannot be read, is larger than 1 MiB, or is not what its name says.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST_BYTES + 1).decode("utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", remedy=remedy) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not text", remedy=remedy) from error
    if len(text) > _LARGEST_BYTES:
        raise UsageError(f"{path} is larger than 1 MiB: it is no config", remedy=remedy)
    return _PARSERS.get(path.suffix, parse)(text, str(path), remedy)


class _TwiceError(Exception):
    """A key of a JSON object stands twice, and Python would keep the last."""


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    counts = Counter(key for key, _ in pairs)
    for key, count in counts.items():
        if count > 1:
            raise _TwiceError(key)
    return dict(pairs)


def _json(text: str, source: str, remedy: str) -> Document:
    try:
        return Document(json.loads(text, object_pairs_hook=_each_once))
    except _TwiceError as error:
        raise UsageError(
            f"{source}: the key {shown(str(error))} stands twice in one object",
            remedy="Leave one of the two.",
        ) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{source} is not JSON: {error}", remedy=remedy) from error


def _toml(text: str, source: str, remedy: str) -> Document:
    try:
        return Document(tomllib.loads(text))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{source} is not TOML: {error}", remedy=remedy) from error


def parse(text: str, source: str, remedy: str = "Mend that line.") -> Document:
    """Read a YAML text; nothing in it is executed.

    Raises
    ------
    UsageError
        If it is no YAML, a key is none or stands twice in one mapping, be it written in two ways
        (`1` and `yes` are one key to Python), or there are more values than a config has, each
        counted as often as an alias names it; names the line.

    Examples
    --------
    >>> parse("lora: {alpha: 1e-4}", "x").data
    {'lora': {'alpha': 0.0001}}
    """
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None:
            return Document({}, {})
        lines = _Lines(source, loader)
        lines.walk(root, "$")
        return Document(loader.construct_document(root), lines.found, _head(text))
    except (yaml.YAMLError, RecursionError) as error:
        raise UsageError(
            f"{source} is not YAML: {' '.join(str(error).split())}",
            remedy=remedy,
        ) from error


def _head(text: str) -> str:
    comment = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
    return " ".join(line.lstrip("#").strip() for line in comment)


class _Lines:
    """The line of every value, by its path; each key once."""

    def __init__(self, source: str, loader: _Loader) -> None:
        self.found: dict[str, int] = {}
        self._source = source
        self._loader = loader
        self._characters = 0

    def walk(self, node: yaml.Node, path: str) -> None:
        """Note a node and all below it."""
        line = node.start_mark.line + 1
        self.found.setdefault(path, line)
        self._characters += len(path)
        if self._characters > _MOST_PATHS:
            raise UsageError(
                f"{self._source}, line {line}: its aliases and keys stand for more values than a "
                "config has",
                remedy="Write out what is meant.",
            )
        if isinstance(node, yaml.SequenceNode):
            for index, child in enumerate(node.value):
                self.walk(child, f"{path}[{index}]")
        elif isinstance(node, yaml.MappingNode):
            self._walk_keys(node, path)

    def _walk_keys(self, node: yaml.MappingNode, path: str) -> None:
        seen: dict[str, int] = {}
        meant: dict[Hashable, str] = {}
        for key, child in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise UsageError(
                    f"{self._source}, line {line}: a key of {path} is a list or a mapping",
                    remedy="Keys are texts, such as `rank:`.",
                )
            if key.value in seen:
                raise UsageError(
                    f"{self._source}, line {line}: {path}.{key.value} stands twice; first in line "
                    f"{seen[key.value]}",
                    remedy="Remove one of them.",
                )
            means = self._meaning(key)
            if means in meant:
                first = meant[means]
                raise UsageError(
                    f"{self._source}, line {line}: {path}.{key.value}, read as {means!r}, is the "
                    f"key {path}.{first} of line {seen[first]} again",
                    remedy="Remove one of them; or quote both, if texts are meant.",
                )
            meant[means] = key.value
            seen[key.value] = line
            self.found[f"{path}.{key.value}"] = line
            self.walk(child, f"{path}.{key.value}")

    def _meaning(self, key: yaml.ScalarNode) -> Hashable:
        """The key as the mapping will have it: `on` is True there, which is 1 to Python."""
        value = key.value if key.tag in _NO_OBJECTS else self._loader.construct_object(key)
        # What cannot be a key at all, such as `!!set x`, PyYAML refuses when it makes the mapping.
        return value if isinstance(value, Hashable) else str(key.value)


_PARSERS: Mapping[str, Callable[[str, str, str], Document]] = {".json": _json, ".toml": _toml}
