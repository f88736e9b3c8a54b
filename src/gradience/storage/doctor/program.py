"""A command line and its script as facts: the files are read, nothing is run."""

import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from gradience.paths import as_path
from gradience.storage.doctor import script
from gradience.storage.doctor.command import Command, parse
from gradience.storage.doctor.facts import Program
from gradience.storage.doctor.profiles import read_dotenv
from gradience.storage.doctor.rules_program import takes_effect
from gradience.storage.environment.variables import VARIABLES

_LARGEST = 5_000_000


def read_program(
    words: Sequence[str], *, environ: Mapping[str, str], home: Path, cwd: Path
) -> Program:
    """What a command line and the script that it runs say of themselves.

    Parameters
    ----------
    words : sequence of str
        The command; a single word with spaces in it is split as a shell would.
    environ, home, cwd
        Of the process that would run it.
    """
    if len(words) == 1 and " " in words[0] and not Path(words[0]).exists():
        words = shlex.split(words[0])
    command = parse(words)
    seen = _environment(command, environ)
    path, source, note = _source(command, home, cwd)
    folder = path.parent if path else cwd
    found = script.read(
        source,
        environ=seen,
        home=str(home),
        load=lambda name: _module(folder, name),
        arguments=tuple(command.arguments),
    )
    dotenvs = [a.value for a in found.assignments if a.how == "load_dotenv" and a.value]
    dotenv = next(
        (s for v in dotenvs for base in (folder, cwd) if (s := read_dotenv(base / v))), ()
    )
    return Program(
        words=tuple(words),
        script=path,
        python=_interpreter(command, seen),
        prefix=command.prefix,
        removed=tuple(command.removed) if not command.emptied else tuple(environ),
        flags=tuple(command.flags),
        imports=tuple(found.imports),
        assignments=tuple(found.assignments),
        literals=tuple(found.literals),
        computed=tuple(found.computed),
        dotenv=dotenv,
        notes=(*([note] if note else []), *found.notes),
    )


def environment(program: Program, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment that the program's libraries will see: assignments that come in time."""
    seen = {k: v for k, v in environ.items() if k not in program.removed} | dict(program.prefix)
    for assignment in program.assignments:
        if assignment.how == "load_dotenv":
            loaded = {s.name: s.value for s in program.dotenv if s.name not in seen}
            late = {n for n in loaded if not _in_time(program, n, assignment.order)}
            seen |= {n: v for n, v in loaded.items() if n not in late}
        elif assignment.value is not None and takes_effect(program, assignment):
            seen[assignment.name] = assignment.value
    return seen


def _in_time(program: Program, name: str, order: int) -> bool:
    from gradience.storage.doctor.rules_program import frozen_by  # noqa: PLC0415

    return name not in VARIABLES or frozen_by(program, name, order) is None


def _environment(command: Command, environ: Mapping[str, str]) -> dict[str, str]:
    base = {} if command.emptied else dict(environ)
    for name in command.removed:
        base.pop(name, None)
    return base | command.prefix


def _source(command: Command, home: Path, cwd: Path) -> tuple[Path | None, str, str]:
    """The script's path and text, or why there is none."""
    if command.code:
        return None, command.code, ""
    if command.module:
        parts = command.module.split(".")
        named = cwd.joinpath(*parts)
        tried = [named.with_suffix(".py"), named / "__main__.py"]
    elif command.script:
        tried = [cwd / as_path(command.script, home)]
    else:
        return None, "", f"no Python script in: {shlex.join([command.program, *command.arguments])}"
    for path in tried:
        if path.is_file():
            if path.stat().st_size > _LARGEST:
                return path, "", f"{path} is larger than a script"
            try:
                return path, path.read_text(encoding="utf-8", errors="replace"), ""
            except OSError as error:
                return path, "", f"{path} cannot be read: {error.strerror}"
    return None, "", f"there is no {tried[0]}"


def _module(folder: Path, name: str) -> str | None:
    """The source of a module beside the script."""
    base = folder.joinpath(*name.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        try:
            if path.is_file() and path.stat().st_size < _LARGEST:
                return path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
    return None


def _interpreter(command: Command, environ: Mapping[str, str]) -> str:
    """The interpreter that the command names, or that its launcher's first line names."""
    program = shutil.which(command.program, path=environ.get("PATH", os.defpath))
    if program is None:
        return ""
    if command.is_python:
        return program
    try:
        with Path(program).open("rb") as file:
            first = file.readline(200).decode(errors="replace").strip()
    except OSError:
        return ""
    words = first.removeprefix("#!").split() if first.startswith("#!") else []
    if words and words[0].endswith("/env") and len(words) > 1:
        return shutil.which(words[1], path=environ.get("PATH", os.defpath)) or ""
    return words[0] if words and "python" in words[0] else ""
