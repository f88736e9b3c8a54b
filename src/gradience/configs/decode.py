"""Plain data to a record, with every mistake found and not only the first.

msgspec stops at the first error. So each part is walked here, and msgspec judges single values.
"""

import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from gradience.configs.problems import Problem, meant


@dataclass(frozen=True, slots=True)
class Decoded:
    """What came of plain data.

    Attributes
    ----------
    parts : dict of str to object
        Every part and value that could be read, by path: `$.lora`, `$.seeds`, `$.variants[0]`,
        and `$` for the whole.
    problems : list of Problem
        Of what could not.
    """

    parts: dict[str, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def decode(data: object, kind: type[msgspec.Struct]) -> Decoded:
    """Read plain data as a struct of structs, tuples of structs, and single values."""
    decoded = Decoded()
    _struct(data, kind, decoded, "$")
    return decoded


def _struct(data: object, kind: type[msgspec.Struct], decoded: Decoded, path: str) -> Any:
    problems = decoded.problems
    if not isinstance(data, Mapping):
        problems.append(Problem(path=path, message=f"{data!r} is no mapping of keys to values"))
        return None
    fields = {f.encode_name: f for f in msgspec.structs.fields(kind)}
    types = get_type_hints(kind)
    before = len(problems)
    values = {}
    for key, value in data.items():
        if key in fields:
            name = fields[key].name
            values[name] = _value(value, types[name], decoded, f"{path}.{key}")
        else:
            hint = meant(str(key), fields)
            problems.append(Problem(path=f"{path}.{key}", message=f"unknown key; {hint}"))
    problems += [
        Problem(path=f"{path}.{name}", message="missing; it has no default")
        for name, known in fields.items()
        if known.required and name not in data
    ]
    if len(problems) > before:
        return None
    decoded.parts[path] = kind(**values)
    return decoded.parts[path]


def _value(value: object, kind: Any, decoded: Decoded, path: str) -> Any:
    problems = decoded.problems
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _struct(value, kind, decoded, path)
    inner = get_args(kind)[0] if get_origin(kind) is tuple else None
    if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
        if not isinstance(value, list):
            problems.append(Problem(path=path, message=f"{value!r} is no list"))
            return ()
        return tuple(_struct(v, inner, decoded, f"{path}[{i}]") for i, v in enumerate(value))
    try:
        decoded.parts[path] = msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        problems.append(Problem(path=path, message=_why(value, kind, error)))
        return None
    return decoded.parts[path]


def _why(value: object, kind: Any, error: msgspec.ValidationError) -> str:
    known = [name for part in (kind, *get_args(kind)) for name in _choices(part)]
    if known and isinstance(value, str):
        return f"{value!r} is none of its values; {meant(value, known)}"
    if get_origin(kind) is tuple and not isinstance(value, list):
        return f"{value!r} is no list; write it in brackets, with commas: [a, b]"
    text = str(error).replace("`", "")
    return f"{value!r}: {text[:1].lower()}{text[1:]}"


def _choices(kind: Any) -> tuple[str, ...]:
    return typing.cast("tuple[str, ...]", get_args(kind)) if get_origin(kind) is Literal else ()
