"""A config file to settings: every mistake at once, with line, path, value and remedy.

Relative paths are relative to the config file, those of `--set` to the working directory, so that
a config can be run from anywhere. What is returned holds absolute paths.
"""

import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

from gradience.bench.base_model import PACKAGE, base_directory
from gradience.bench.config.check import check_parts
from gradience.bench.executors import EXECUTORS
from gradience.bench.settings import BenchSettings, ExecutorSettings, ModelSettings, TaskSettings
from gradience.bench.tasks import TASKS
from gradience.bench.tasks.rows import is_hub, parse_hub
from gradience.configs.decode import decode
from gradience.configs.document import parse, read_document
from gradience.configs.problems import Problem, refuse
from gradience.errors import BaseModelError, GradienceError, UsageError
from gradience.hub_ids import is_repo_id
from gradience.paths import as_path, exists, nearest

_REMEDY = "docs/bench.md has every key; `gradience bench init` writes a commented config."

SMOKE_SEEDS = 2
SMOKE_RUNGS = 2
SMOKE_STEPS = 4
SMOKE_ITEMS = 32


def load(path: Path, overrides: Sequence[str] = (), *, home: Path, cwd: Path) -> BenchSettings:
    """The settings that a config file means.

    Parameters
    ----------
    path : Path
    overrides : sequence of str
        `key.of.it=value`, the value in YAML; a part of a list by its number: `seeds.0=7`.
    home, cwd : Path
        For `~`, and for relative paths in overrides.

    Raises
    ------
    UsageError
        Lists every problem: unknown keys, wrong types, values that cannot be meant, data and models
        that are not there.
    """
    close = nearest(path)
    document = read_document(
        path, remedy=f"Did you mean {close}?" if close and close != path else _REMEDY
    )
    data, problems = document.data, []
    for override in overrides:
        problems += override_in(data, override, home=home, cwd=cwd)
    lines = _of_the_file(document.lines, overrides)
    decoded = decode(data, BenchSettings)
    parts = decoded.parts
    problems += decoded.problems
    problems += check_parts(parts, tasks=TASKS, executors=EXECUTORS)
    where = _Where(directory=path.absolute().parent, home=home)
    model = _model(parts.get("$.model"), where, problems)
    task = _task(parts.get("$.task"), where, problems)
    problems += _executor(parts.get("$.executor"))
    source = " --set ".join([str(path), *overrides])
    refuse(problems, source, lines, remedy=_remedy(problems, document.head))
    settings: BenchSettings = parts["$"]
    return msgspec.structs.replace(settings, model=model, task=task)


def _remedy(problems: Sequence[Problem], head: str) -> str:
    """Where a file is missing, what the config says at its head too: often how it is made."""
    missing = any(problem.message.startswith("there is no ") for problem in problems)
    return f"{_REMEDY} The config begins with: {head}" if missing and head else _REMEDY


def override_in(data: Any, override: str, *, home: Path, cwd: Path) -> list[Problem]:
    """Put one `--set` into plain data; problems where it has no place there."""
    name, equals, text = override.partition("=")
    try:
        value = parse(text, "the value").data if text.strip() else None
    except UsageError as error:
        return [Problem(path=f"--set {override}", message=str(error))]
    if not equals or not name:
        return [Problem(path=f"--set {override}", message="write it as key.of.it=value")]
    if name == "model.id" or name.startswith(("task.train", "task.test")):
        value = _from_here(value, cwd, home)
    *above, last = name.split(".")
    place = data
    for key in above:
        place = _below(place, key)
    if isinstance(place, dict):
        place[last] = value
    elif isinstance(place, list) and last.isdecimal() and int(last) < len(place):
        place[int(last)] = value
    else:
        return [Problem(path=f"--set {override}", message="there is no such place")]
    return []


def _of_the_file(lines: Mapping[str, int], overrides: Sequence[str]) -> dict[str, int]:
    """Lines of paths, none for what an override put there."""
    put = ["$." + override.partition("=")[0] for override in overrides]
    paths = [re.sub(r"\.(\d+)(?=\.|$)", r"[\1]", path) for path in put]
    kept = {
        path: line
        for path, line in lines.items()
        if not any(path == p or path.startswith((f"{p}.", f"{p}[")) for p in paths)
    }
    return kept | dict.fromkeys(paths, 0)


def smoke(settings: BenchSettings) -> BenchSettings:
    """The same bench, small enough to see it run through: no verdict can come of it.

    Two seeds, two rungs of each ladder, a few steps and items; everything else as it is.
    """
    steps = min(settings.train.steps or SMOKE_STEPS, SMOKE_STEPS)
    limit = min(settings.evaluation.limit or SMOKE_ITEMS, SMOKE_ITEMS)
    return msgspec.structs.replace(
        settings,
        name=f"{settings.name} (smoke)",
        seeds=settings.seeds[:SMOKE_SEEDS],
        train=msgspec.structs.replace(settings.train, epochs=None, steps=steps),
        evaluation=msgspec.structs.replace(settings.evaluation, limit=limit),
        variants=tuple(
            msgspec.structs.replace(
                ladder,
                ranks=ladder.ranks[:SMOKE_RUNGS],
                energies=ladder.energies[:SMOKE_RUNGS],
                heal_steps=math.ceil(steps / 2) if ladder.action == "heal" else None,
            )
            for ladder in settings.variants
        ),
    )


def _below(place: Any, key: str) -> Any:
    if isinstance(place, dict):
        return place.setdefault(key, {})
    if isinstance(place, list) and key.isdecimal() and int(key) < len(place):
        return place[int(key)]
    return None


class _Where(msgspec.Struct, frozen=True, kw_only=True):
    """What relative paths of a config are relative to."""

    directory: Path
    home: Path

    def path(self, text: str) -> Path:
        return self.directory / as_path(text, self.home)


def _from_here(value: Any, cwd: Path, home: Path) -> Any:
    """A path typed into a shell, absolute where it is there; anything else as it is."""
    if isinstance(value, list):
        return [_from_here(v, cwd, home) for v in value]
    path = cwd / as_path(value, home) if isinstance(value, str) and value else None
    return str(path) if path is not None and exists(str(path)) else value


def _model(
    model: ModelSettings | None, where: _Where, problems: list[Problem]
) -> ModelSettings | None:
    if model is None:
        return None
    if model.id.startswith(PACKAGE):
        try:
            base_directory(model)
        except BaseModelError as error:
            problems.append(Problem(path="$.model.id", message=f"{error}; {error.remedy}"))
        resolved = model
    else:
        path = where.path(model.id)
        there = exists(str(path))
        if not there and is_repo_id(model.id):
            return model
        resolved = msgspec.structs.replace(model, id=_normal(path))
        if not there:
            neither = ", and it is no Hub id"
            problems.append(_missing("$.model.id", model.id, path, "directory", neither))
    if model.revision is not None:
        problems.append(
            Problem(
                path="$.model.revision",
                message=f"{model.revision!r}: only a model of the Hub has revisions; remove it",
            )
        )
    return resolved


def _task(task: TaskSettings | None, where: _Where, problems: list[Problem]) -> TaskSettings | None:
    if task is None:
        return None
    before = len(problems)
    train = _data("$.task.train", task.train, where, problems)
    test = _data("$.task.test", task.test, where, problems)
    if task.name not in TASKS:
        return None
    options = {
        key: _normal(where.path(value))
        if key in TASKS[task.name].paths and isinstance(value, str)
        else value
        for key, value in task.options.items()
    }
    resolved = msgspec.structs.replace(task, train=train, test=test, options=options)
    if len(problems) == before:
        problems += [
            Problem(path="$.task", message=message) for message in TASKS[task.name].check(resolved)
        ]
    return resolved


def _data(
    key: str, names: Sequence[str], where: _Where, problems: list[Problem]
) -> tuple[str, ...]:
    found = []
    for i, name in enumerate(names):
        if is_hub(name):
            try:
                parse_hub(name)
            except GradienceError as error:
                problems.append(Problem(path=f"{key}[{i}]", message=f"{error}; {error.remedy}"))
            found.append(name)
            continue
        path = where.path(name)
        if not path.is_file():
            problems.append(_missing(f"{key}[{i}]", name, path, "file"))
        found.append(_normal(path))
    return tuple(found)


def _executor(executor: ExecutorSettings | None) -> list[Problem]:
    chosen = executor if executor is not None else ExecutorSettings()
    if chosen.name not in EXECUTORS:
        return []
    return [
        Problem(path="$.executor", message=message)
        for message in EXECUTORS[chosen.name].check(chosen)
    ]


def _missing(path: str, written: str, looked: Path, kind: str, neither: str = "") -> Problem:
    close = nearest(looked.absolute())
    hint = f"did you mean {close}?" if close and close.exists() else "check the path"
    at = "" if written == str(looked) else f" ({_normal(looked)})"
    return Problem(path=path, message=f"there is no {kind} {written!r}{at}{neither}; {hint}")


def _normal(path: Path) -> str:
    """Absolute, without `..`: links stay, since a data set may be one."""
    return os.path.normpath(path)


def as_yaml(settings: BenchSettings) -> str:
    """Settings as a config file."""
    plain: Mapping[str, Any] = msgspec.to_builtins(settings)
    return str(yaml.safe_dump(dict(plain), sort_keys=False))
