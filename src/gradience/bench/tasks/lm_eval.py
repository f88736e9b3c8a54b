"""Any task of EleutherAI's lm-evaluation-harness, through its own API; an item is a document.

The model is handed over as it stands, so that the base is loaded once and the adapter is the one
on it. The harness's answer cache stays off: its key is the request alone, without the model, so
that two adapters would share their answers (`lm_eval.api.model.hash_args`). What is learned comes
from files of prompts and completions: the harness has no training.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from gradience.bench.records import Items
from gradience.bench.settings import TaskSettings
from gradience.bench.tasks.causal import examples
from gradience.bench.tasks.rows import column, files_of, rows_of
from gradience.bench.tasks.task import (
    Encoded,
    Examinee,
    Task,
    no_labels,
    options_of,
    problems_of,
)
from gradience.errors import UnreadableError, of_an_extra


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `lm_eval`.

    Attributes
    ----------
    task : str
        A task of the harness, such as `hellaswag`; no group of tasks.
    metric : str
        One of its metrics that has a number per document, such as `acc`, `exact_match`.
    include : str or None
        Directory with task files of your own. Their `!function` tags are run: they are your code.
    shots : int or None
        Few-shot examples; the task's own number by default.
    filter : str or None
        Which of its answer filters; the first by default.
    prompt, completion : str
        Columns of the training files.
    """

    task: str
    metric: str = "acc"
    include: str | None = None
    shots: int | None = None
    filter: str | None = None
    prompt: str = "prompt"
    completion: str = "completion"


def check(settings: TaskSettings) -> list[str]:
    """Options, training files, and that the harness knows the task and its metric."""
    problems = problems_of(settings, Options, lambda: _read(settings), needs_test=False)
    if settings.test:
        problems.append(
            f"task.test is {list(settings.test)!r}; lm_eval asks the harness's own items: leave "
            "it out"
        )
    return problems


def files(settings: TaskSettings) -> Mapping[str, Path]:
    """Training files, and everything in the `include` directory: task files and their data."""
    include = options_of(settings, Options).include
    found = files_of(settings.train)
    if include is not None:
        root = Path(include).expanduser()
        found |= {
            f"include/{p.relative_to(root)}": p for p in sorted(root.rglob("*")) if p.is_file()
        }
    return found


def test_items(settings: TaskSettings) -> int:
    """Documents of the task."""
    return len(list(_task(options_of(settings, Options)).eval_docs))


def training(settings: TaskSettings, tokenizer: Any, max_length: int) -> Sequence[Encoded]:
    """One example per row: the prompt is given, the completion is learned."""
    options = options_of(settings, Options)
    rows = rows_of(settings.train)
    prompts, completions = (
        [str(text) for text in column(rows, name, source="task.train")]
        for name in (options.prompt, options.completion)
    )
    return examples(tokenizer, zip(prompts, completions, strict=True), max_length)


def evaluate(settings: TaskSettings, examinee: Examinee) -> Items:
    """The metric of each document; negated where less is better."""
    harness = _harness()
    options = options_of(settings, Options)
    manager = _manager(options.include, options.task)
    language_model = harness.models.huggingface.HFLM(
        pretrained=examinee.model,
        tokenizer=examinee.tokenizer,
        batch_size=examinee.batch_size,
        max_length=examinee.max_length,
    )
    result = harness.simple_evaluate(
        model=language_model,
        tasks=[options.task],
        num_fewshot=options.shots,
        limit=examinee.limit,
        log_samples=True,
        use_cache=None,  # see above: never shared between adapters
        cache_requests=False,
        bootstrap_iters=0,
        task_manager=manager,
    )
    ((_, samples),) = result["samples"].items()
    sign = 1.0 if _task(options).higher_is_better().get(options.metric, True) else -1.0
    chosen = _of_one_filter(samples, options)
    examinee.progress("evaluate", len(chosen), len(chosen))
    return Items(
        ids=tuple(str(sample["doc_id"]) for sample in chosen),
        scores=tuple(sign * _number(sample, options) for sample in chosen),
    )


def _of_one_filter(samples: Sequence[Mapping[str, Any]], options: Options) -> list[Any]:
    names = list(dict.fromkeys(sample["filter"] for sample in samples))
    wanted = names[0] if options.filter is None else options.filter
    if wanted not in names:
        raise UnreadableError(
            f"{options.task} has no filter {wanted!r}; it has {', '.join(names)}",
            remedy="Correct `task.options.filter`.",
        )
    chosen = [sample for sample in samples if sample["filter"] == wanted]
    return sorted(chosen, key=lambda sample: sample["doc_id"])


def _number(sample: Mapping[str, Any], options: Options) -> float:
    value = sample.get(options.metric)
    if not isinstance(value, bool | int | float):
        raise UnreadableError(
            f"{options.task} has no number {options.metric!r} per document; it has "
            f"{', '.join(sample['metrics'])}",
            remedy="Correct `task.options.metric`.",
        )
    return float(value)


def _read(settings: TaskSettings) -> None:
    options = options_of(settings, Options)
    rows = rows_of(settings.train)
    for name in (options.prompt, options.completion):
        column(rows, name, source="task.train")
    metrics = _task(options).higher_is_better()
    if options.metric not in metrics:
        raise UnreadableError(
            f"{options.task} has no metric {options.metric!r}; it has {', '.join(metrics)}",
            remedy="Correct `task.options.metric`.",
        )


def _harness() -> Any:
    with of_an_extra(
        "the task lm_eval needs lm-evaluation-harness, which is not installed",
        remedy="pip install 'gradience[lm-eval]'",
    ):
        import lm_eval  # noqa: PLC0415 - an extra, and seconds of imports
        import lm_eval.models.huggingface  # noqa: PLC0415
        import lm_eval.tasks  # noqa: PLC0415
    return lm_eval


@cache
def _manager(include: str | None, task: str) -> Any:
    """The harness's index of task files: its own 14 000 take ten seconds, so only if need be."""
    manager = _harness().tasks.TaskManager
    if include is not None:
        own = manager(include_path=include, include_defaults=False)
        if task in own.all_tasks:
            return own
    return manager(include_path=include)


def _task(options: Options) -> Any:
    """The harness's task object, with its documents loaded."""
    harness = _harness()
    try:
        found = harness.tasks.get_task_dict([options.task], _manager(options.include, options.task))
    except (KeyError, ValueError, OSError) as error:
        raise UnreadableError(
            f"the harness cannot load the task {options.task!r}: {error}",
            remedy="`lm_eval ls tasks` lists its names; put files of your own in "
            "`task.options.include`.",
        ) from error
    task = found.get(options.task)
    if len(found) != 1 or task is None or isinstance(task, dict):
        raise UnreadableError(
            f"{options.task!r} is a group of tasks", remedy="Name one task of the group."
        )
    return task


LM_EVAL = Task(
    description="a task of lm-evaluation-harness; score: one of its metrics per document",
    options=Options,
    model="causal_lm",
    metric=lambda settings: options_of(settings, Options).metric,
    check=check,
    files=files,
    test_items=test_items,
    labels=no_labels,
    training=training,
    evaluate=evaluate,
    paths=("include",),
)
