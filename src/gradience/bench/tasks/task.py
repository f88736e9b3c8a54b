"""What a task is: data to learn from, items to ask, and a score for each.

A task is a record of functions. The first ones need no torch, so that a config can be checked, its
files fingerprinted and its trials costed on a machine that trains nothing; the last two get a model
and its tokenizer.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import msgspec

from gradience.bench.records import Items
from gradience.bench.settings import TaskSettings
from gradience.bench.tasks.rows import is_hub
from gradience.errors import GradienceError, UsageError

Encoded = dict[str, Any]
"""One training example: `input_ids`, and `labels` (a class, or one token or -100 per token)."""

ModelKind = Literal["sequence_classification", "causal_lm"]
"""Which head the base model gets: transformers' `AutoModelFor...` of that name."""

IGNORED = -100
"""Label of a token that is not learned: the prompt, and padding (torch's cross entropy)."""

O = TypeVar("O", bound=msgspec.Struct)  # noqa: E741 - the type of a task's options


class ProgressReport(Protocol):
    """Told how far a stage is."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """`done` of `total` units of `stage` are done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Examinee:
    """A model that is asked, and how.

    Attributes
    ----------
    model : torch.nn.Module
        In evaluation mode, on its device.
    tokenizer : PreTrainedTokenizerBase
    batch_size : int
    limit : int or None
        The first so many items; None for all.
    max_length : int
        Longest input in tokens.
    progress : callable
        Told ("evaluate", items done, items in all).
    """

    model: Any
    tokenizer: Any
    batch_size: int
    limit: int | None
    max_length: int
    progress: ProgressReport

    def batches(self, inputs: Sequence[Sequence[int]]) -> Iterator[list[int]]:
        """Places of the inputs, batch by batch, with progress told after each.

        Inputs of like length are together, for less padding; the order is the same for every
        adapter.
        """
        order = sorted(range(len(inputs)), key=lambda i: len(inputs[i]))
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            yield chosen
            self.progress("evaluate", start + len(chosen), len(order))


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One kind of thing to learn and to ask.

    Attributes
    ----------
    description : str
        One line for lists.
    options : msgspec struct type
        What `TaskSettings.options` may hold.
    model : str
        Head of the base model.
    metric : callable
        What a score is called: "accuracy".
    check : callable
        Problems of the settings in words, each naming the key and the value; empty when the task
        can run. Reads the data, needs no torch.
    files : callable
        Every file that the scores depend on, by the name in the settings.
    test_items : callable
        How many items there are, before any limit.
    labels : callable
        How many classes the head tells apart; 0 where the model has no such head.
    training : callable
        (settings, tokenizer, max_length) to the training examples, in the order of the data.
    evaluate : callable
        (settings, examinee) to the score of each test item, in the order of the data.
    paths : tuple of str
        Options that are paths; in a config they are relative to it.
    """

    description: str
    options: type[msgspec.Struct]
    model: ModelKind
    metric: Callable[[TaskSettings], str]
    check: Callable[[TaskSettings], Sequence[str]]
    files: Callable[[TaskSettings], Mapping[str, Path]]
    test_items: Callable[[TaskSettings], int]
    labels: Callable[[TaskSettings], int]
    training: Callable[[TaskSettings, Any, int], Sequence[Encoded]]
    evaluate: Callable[[TaskSettings, Examinee], Items]
    paths: tuple[str, ...] = ()


def no_labels(settings: TaskSettings) -> int:
    """A causal model has no head of classes."""
    return 0


def options_of(settings: TaskSettings, kind: type[O]) -> O:
    """The options of a task, checked.

    Raises
    ------
    UsageError
        Names the first option that cannot be meant.
    """
    problems = option_problems(settings, kind)
    if problems:
        raise UsageError(problems[0], remedy="Correct `task.options` in the config.")
    return msgspec.convert(settings.options, kind)


def option_problems(settings: TaskSettings, kind: type[msgspec.Struct]) -> list[str]:
    """What is wrong with `task.options`: unknown keys with the nearest name, wrong types, gaps."""
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    problems = []
    for key, value in settings.options.items():
        if key not in fields:
            close = get_close_matches(key, fields, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(fields)}"
            problems.append(f"task.options: unknown key {key!r} for {settings.name}; {hint}")
            continue
        try:
            msgspec.convert(value, fields[key].type)
        except msgspec.ValidationError as error:
            problems.append(f"task.options.{key} is {value!r}: {error}")
    missing = [n for n, f in fields.items() if f.required and n not in settings.options]
    problems += [f"task.options.{name} is missing; {settings.name} needs it" for name in missing]
    return problems


def problems_of(
    settings: TaskSettings,
    kind: type[msgspec.Struct],
    read: Callable[[], object],
    *,
    needs_test: bool = True,
) -> list[str]:
    """The problems of options and sources; when there are none, what `read` says of the data."""
    problems = option_problems(settings, kind)
    for key, names in (("train", settings.train), ("test", settings.test)):
        if not names and (key == "train" or needs_test):
            problems.append(f"task.{key} names no data")
        problems += [
            f"task.{key}: {name} is no file"
            for name in names
            if not is_hub(name) and not Path(name).expanduser().is_file()
        ]
    if problems:
        return problems
    try:
        read()
    except GradienceError as error:
        problems.append(f"task: {error}")
    return problems
