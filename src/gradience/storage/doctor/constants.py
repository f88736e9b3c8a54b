"""The value of an expression where the source text alone decides it. Pure; nothing is executed."""

import ast
import posixpath
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What is known while reading: names bound to one text, environment and home."""

    names: dict[str, str] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)
    home: str = "/"


def dotted(node: ast.expr) -> str:
    """`os.path.join` for such an expression; empty for anything that is not dots and names.

    Examples
    --------
    >>> dotted(ast.parse("os.path.join", mode="eval").body)
    'os.path.join'
    """
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join(reversed([*parts, node.id])) if isinstance(node, ast.Name) else ""


def text_of(node: ast.expr | None, scope: Scope) -> str | None:
    """The text that an expression stands for, or None where it cannot be told.

    Examples
    --------
    >>> scope = Scope(names={"root": "/data"}, home="/home/me")
    >>> for source in ("f'{root}/hub'", "os.path.expanduser('~/x')", "Path(root) / 'a'", "f()"):
    ...     print(text_of(ast.parse(source, mode="eval").body, scope))
    /data/hub
    /home/me/x
    /data/a
    None
    """
    for kind, read in _READERS.items():
        if isinstance(node, kind):
            return read(node, scope)
    return None


def _constant(node: ast.Constant, _: Scope) -> str | None:
    return str(node.value) if isinstance(node.value, str | int | float) else None


def _formatted(node: ast.FormattedValue, scope: Scope) -> str | None:
    plain = node.format_spec is None and node.conversion == -1
    return text_of(node.value, scope) if plain else None


def _operation(node: ast.BinOp, scope: Scope) -> str | None:
    sides = [text_of(node.left, scope), text_of(node.right, scope)]
    if isinstance(node.op, ast.Add):
        return _joined(sides)
    return _path(sides) if isinstance(node.op, ast.Div) else None


def _either(node: ast.BoolOp, scope: Scope) -> str | None:
    if not isinstance(node.op, ast.Or):
        return None
    return next((t for v in node.values if (t := text_of(v, scope))), None)


def _subscript(node: ast.Subscript, scope: Scope) -> str | None:
    if dotted(node.value) not in {"os.environ", "environ"}:
        return None
    return scope.environ.get(text_of(node.slice, scope) or "")


def _call(node: ast.Call, scope: Scope) -> str | None:
    name = dotted(node.func)
    arguments = [text_of(a, scope) for a in node.args]
    if name in {"os.getenv", "os.environ.get", "environ.get", "getenv"} and arguments:
        default = arguments[1] if len(arguments) > 1 else None
        return scope.environ.get(arguments[0] or "", default)
    if name in {"Path.home", "pathlib.Path.home"}:
        return scope.home
    if name in _METHODS and arguments and None not in arguments:
        return _METHODS[name]([a for a in arguments if a is not None], scope)
    if isinstance(node.func, ast.Attribute) and node.func.attr in {
        "expanduser",
        "resolve",
        "absolute",
        "as_posix",
    }:
        inner = text_of(node.func.value, scope)
        expands = node.func.attr == "expanduser"
        return _expand_user(inner, scope) if inner is not None and expands else inner
    return None


def _expand_user(text: str, scope: Scope) -> str:
    return scope.home + text[1:] if text == "~" or text.startswith("~/") else text


def _expand_vars(text: str, scope: Scope) -> str:
    return re.sub(r"\$(?:(\w+)|\{(\w+)\})", lambda m: scope.environ.get(m[1] or m[2], m[0]), text)


_METHODS: Mapping[str, Callable[[list[str], Scope], str]] = {
    "str": lambda a, _: a[0],
    "os.fspath": lambda a, _: a[0],
    "Path": lambda a, _: posixpath.join(*a),
    "pathlib.Path": lambda a, _: posixpath.join(*a),
    "os.path.join": lambda a, _: posixpath.join(*a),
    "os.path.abspath": lambda a, _: a[0],
    "os.path.realpath": lambda a, _: a[0],
    "os.path.expanduser": lambda a, s: _expand_user(a[0], s),
    "os.path.expandvars": lambda a, s: _expand_vars(a[0], s),
}


def _joined(parts: list[str | None]) -> str | None:
    return None if None in parts else "".join(p for p in parts if p is not None)


def _path(parts: list[str | None]) -> str | None:
    return None if None in parts else posixpath.join(*(p for p in parts if p is not None))


_READERS: Mapping[type[ast.expr], Callable[[Any, Scope], str | None]] = {
    ast.Constant: _constant,
    ast.Name: lambda node, scope: scope.names.get(node.id),
    ast.JoinedStr: lambda node, scope: _joined([text_of(v, scope) for v in node.values]),
    ast.FormattedValue: _formatted,
    ast.BinOp: _operation,
    ast.BoolOp: _either,
    ast.Subscript: _subscript,
    ast.Call: _call,
}
