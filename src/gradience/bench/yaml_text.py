"""YAML as people write it: numbers like 1e-4, each key once, and the line of every value."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from gradience.errors import UsageError


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, with the floats of YAML 1.2: YAML 1.1 reads `1e-4` as a string."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z"),
    list("-+.0123456789"),
)


@dataclass(frozen=True, slots=True)
class Document:
    """A YAML text.

    Attributes
    ----------
    data : object
    lines : mapping of str to int
        Path such as `$.lora.rank` to line, from 1.
    """

    data: Any
    lines: Mapping[str, int]


def parse(text: str, source: str) -> Document:
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
        return Document(loader.construct_document(root), lines)
    except yaml.YAMLError as error:
        raise UsageError(
            f"{source} is not YAML: {' '.join(str(error).split())}",
            remedy="Mend that line; `gradience bench init` writes a config to start from.",
        ) from error
    finally:
        loader.dispose()


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
