"""YAML as people write it: numbers like 1e-4, each key once, and the line of every value.

JSON and TOML are read beside it, by the name of the file; they have no lines.
"""

import itertools
import json
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from gradience.errors import UsageError

_LARGEST_BYTES = 2**24


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, with the floats of YAML 1.2: YAML 1.1 reads `1e-4` as a string."""


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
        If it cannot be read, is larger than 16 MiB, or is not what its name says.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST_BYTES + 1).decode("utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", remedy=remedy) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not text", remedy=remedy) from error
    if len(text) > _LARGEST_BYTES:
        raise UsageError(f"{path} is larger than 16 MiB: it is no config", remedy=remedy)
    return _PARSERS.get(path.suffix, parse)(text, str(path), remedy)


def _json(text: str, source: str, remedy: str) -> Document:
    try:
        return Document(json.loads(text))
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
        If it is no YAML, or a key stands twice in one mapping; names line and key.

    Examples
    --------
    >>> parse("lora: {alpha: 1e-4}", "x").data
    {'lora': {'alpha': 0.0001}}
    """
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return Document({}, {})
        lines: dict[str, int] = {}
        _walk(root, "$", lines, source)
        return Document(loader.construct_document(root), lines, _head(text))
    except (yaml.YAMLError, RecursionError) as error:
        raise UsageError(
            f"{source} is not YAML: {' '.join(str(error).split())}",
            remedy=remedy,
        ) from error
    finally:
        loader.dispose()


def _head(text: str) -> str:
    comment = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
    return " ".join(line.lstrip("#").strip() for line in comment)


def _walk(node: yaml.Node, path: str, lines: dict[str, int], source: str) -> None:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            _walk(child, f"{path}[{index}]", lines, source)
    elif isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, child in node.value:
            line = key.start_mark.line + 1
            if key.value in seen:
                raise UsageError(
                    f"{source}, line {line}: {path}.{key.value} stands twice; first in line "
                    f"{seen[key.value]}",
                    remedy="Remove one of them.",
                )
            seen[key.value] = line
            lines[f"{path}.{key.value}"] = line
            _walk(child, f"{path}.{key.value}", lines, source)


_PARSERS: Mapping[str, Callable[[str, str, str], Document]] = {".json": _json, ".toml": _toml}
