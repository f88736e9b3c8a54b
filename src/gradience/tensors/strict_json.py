"""JSON from strangers: one meaning, or an error.

Python's reader takes the last of two equal keys, NaN, and halves of characters. Another reader of
the same file may take the first, so a file could show one thing to an audit and another to a
server. All of that is refused here.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

from gradience.errors import TensorFileError, shown

_REMEDY = "Download the file again, or save it again."


class _NotPlainError(ValueError):
    """JSON by the letter, of a kind that readers disagree about."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise _NotPlainError(f"has the key {shown(twice)} twice")
    return found


def _no_constant(word: str) -> NoReturn:
    raise _NotPlainError(f"has {word}, which JSON does not allow")


def strict_json_object(path: Path | str, data: bytes, *, what: str) -> dict[str, Any]:
    """The object that a JSON text holds.

    Parameters
    ----------
    path : Path or str
        For the error.
    data : bytes
        UTF-8.
    what : str
        What the text is to the reader: `header`, `index`.

    Raises
    ------
    TensorFileError
        If it is not UTF-8, not JSON, not an object, has a key twice, or is nested too deep.

    Examples
    --------
    >>> strict_json_object(Path("f"), b'{"a": [1]}', what="header")
    {'a': [1]}
    """
    try:
        found = json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant
        )
    except _NotPlainError as error:
        reason = str(error)
    except UnicodeDecodeError as error:
        reason = f"is not UTF-8: byte {data[error.start]:#04x} at {error.start}"
    except json.JSONDecodeError as error:
        around = error.doc[error.pos : error.pos + 20]
        reason = f"is not JSON: {error.msg} at character {error.pos}, {shown(around)}"
    except RecursionError:
        reason = "is nested too deep"
    except ValueError:
        reason = "has a number with thousands of digits"
    else:
        if isinstance(found, dict):
            return found
        reason = f"is a JSON {_json_kind(found)}, not an object"
    raise TensorFileError(f"{path}: the {what} {reason}", remedy=_REMEDY)


def _json_kind(value: object) -> str:
    kinds = {list: "array", str: "string", bool: "boolean", type(None): "null"}
    return kinds.get(type(value), "number")
