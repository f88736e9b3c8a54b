"""Sequence classification: a label per text or pair of texts; an item is right or wrong.

Local tables and JSON lines, or Hub datasets in GLUE's form. The classes are those of the training
data: numbers in their order, words in alphabetical order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from gradience.bench.records import Items
from gradience.bench.settings import TaskSettings
from gradience.bench.tasks.rows import Row, column, files_of, items_columns, rows_of
from gradience.bench.tasks.task import Encoded, Examinee, Task, options_of, problems_of
from gradience.errors import UnreadableError


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `classification`.

    Attributes
    ----------
    text : str
        Column of the text.
    text_pair : str or None
        Column of a second text, for tasks that compare two.
    label : str
        Column of the class.
    columns : tuple of str
        Names of the columns of a table without a header line.
    id, cluster : str or None
        Columns of the items' ids, and of what items share.
    """

    text: str = "text"
    text_pair: str | None = None
    label: str = "label"
    columns: tuple[str, ...] = ()
    id: str | None = None
    cluster: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Data:
    """Texts and class numbers of one side of the data."""

    texts: list[str]
    pairs: list[str] | None
    classes: list[int]
    rows: Sequence[Row]


def check(settings: TaskSettings) -> list[str]:
    """Options, files, columns; a test label that is not in the training data."""
    return problems_of(settings, Options, lambda: (_train(settings), _test(settings)))


def test_items(settings: TaskSettings) -> int:
    """Rows of the test data."""
    return len(rows_of(settings.test, options_of(settings, Options).columns))


def labels(settings: TaskSettings) -> int:
    """Classes of the training data."""
    return len(_classes(settings))


def training(settings: TaskSettings, tokenizer: Any, max_length: int) -> list[Encoded]:
    """One example per row; longer texts are cut."""
    data = _train(settings)
    encoded = _encode(tokenizer, data, max_length)
    return [{**one, "labels": label} for one, label in zip(encoded, data.classes, strict=True)]


def evaluate(settings: TaskSettings, examinee: Examinee) -> Items:
    """1 where the largest logit is the label's, else 0."""
    import torch  # noqa: PLC0415 - the checks above need none
    from transformers import DataCollatorWithPadding  # noqa: PLC0415

    options = options_of(settings, Options)
    data = _test(settings)
    encoded = _encode(examinee.tokenizer, data, examinee.max_length)[: examinee.limit]
    collate = DataCollatorWithPadding(examinee.tokenizer)
    scores = [0.0] * len(encoded)
    for chosen in examinee.batches([one["input_ids"] for one in encoded]):
        batch = collate([encoded[i] for i in chosen]).to(examinee.model.device)
        with torch.inference_mode():
            best = examinee.model(**batch).logits.argmax(dim=-1).tolist()
        for i, predicted in zip(chosen, best, strict=True):
            scores[i] = float(predicted == data.classes[i])
    ids, clusters = items_columns(data.rows, options.id, options.cluster, source="task.test")
    end = len(scores)
    return Items(ids=ids[:end], scores=tuple(scores), clusters=clusters[:end])


def _encode(tokenizer: Any, data: _Data, max_length: int) -> list[Encoded]:
    fields = tokenizer(data.texts, data.pairs, truncation=True, max_length=max_length)
    return [dict(zip(fields, values, strict=True)) for values in zip(*fields.values(), strict=True)]


def _classes(settings: TaskSettings) -> dict[str, int]:
    options = options_of(settings, Options)
    rows = rows_of(settings.train, options.columns)
    found = {str(label) for label in column(rows, options.label, source="task.train")}
    if len(found) < 2:
        raise UnreadableError(
            f"task.train has {len(found)} classes in {options.label!r}",
            remedy="Name the column of the labels in `task.options.label`.",
        )
    numbers = all(label.lstrip("-").isdecimal() for label in found)
    ordered = sorted(found, key=int) if numbers else sorted(found)
    return {label: number for number, label in enumerate(ordered)}


def _train(settings: TaskSettings) -> _Data:
    return _data(settings, settings.train, "task.train")


def _test(settings: TaskSettings) -> _Data:
    return _data(settings, settings.test, "task.test")


def _data(settings: TaskSettings, names: Sequence[str], source: str) -> _Data:
    options = options_of(settings, Options)
    classes = _classes(settings)
    rows = rows_of(names, options.columns)
    if not rows:
        raise UnreadableError(f"{source} has no rows", remedy="Name a file with data.")
    given = [str(label) for label in column(rows, options.label, source=source)]
    unknown = sorted(set(given) - set(classes))
    if unknown:
        raise UnreadableError(
            f"{source} has the label {unknown[0]!r}, which task.train has not "
            f"({', '.join(list(classes)[:10])})",
            remedy="Correct the labels; GLUE's own test splits hide theirs (-1): use validation.",
        )
    items_columns(rows, options.id, options.cluster, source=source)
    pair = options.text_pair
    return _Data(
        texts=[str(text) for text in column(rows, options.text, source=source)],
        pairs=None if pair is None else [str(t) for t in column(rows, pair, source=source)],
        classes=[classes[label] for label in given],
        rows=rows,
    )


CLASSIFICATION = Task(
    description="a class per text or pair of texts; score: right or wrong",
    options=Options,
    model="sequence_classification",
    metric=lambda settings: "accuracy",
    check=check,
    files=lambda settings: files_of((*settings.train, *settings.test)),
    test_items=test_items,
    labels=labels,
    training=training,
    evaluate=evaluate,
)
