"""A file that a user writes, YAML or JSON, as a record: unknown keys are refused by name."""

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

from gradience.errors import UsageError

T = TypeVar("T", bound=msgspec.Struct)


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a file.

    Raises
    ------
    UsageError
        If it cannot be read, or holds none.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))  # JSON is YAML
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{path} cannot be read: {reason}", remedy="Mend or name it.") from error
    if not isinstance(found, dict):
        raise UsageError(f"{path} holds no mapping", remedy="Write `key: value` lines, or JSON.")
    return found


def convert(found: Mapping[str, Any], kind: type[T], *, source: str) -> T:
    """A mapping as a record.

    Raises
    ------
    UsageError
        If a key is not known, with the nearest one, or a value is of the wrong kind.
    """
    known = kind.__struct_encode_fields__
    for key in found:
        if key not in known:
            close = get_close_matches(str(key), known, n=1)
            raise UsageError(
                f"{source}: unknown key {key!r}",
                remedy=f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(known)}.",
            )
    try:
        return msgspec.convert(found, kind)
    except msgspec.ValidationError as error:
        raise UsageError(f"{source}: {error}", remedy="Correct the value.") from error
