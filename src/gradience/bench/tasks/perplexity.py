"""Causal perplexity: how well a model predicts plain text; an item is a window of a document.

Windows are cut at a fixed number of words, not of tokens, so that the items are the same for every
tokenizer and can be counted without one. A score is minus the mean negative log-likelihood per
token of the window; windows of one document are one cluster.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from gradience.bench.records import Items
from gradience.bench.settings import TaskSettings
from gradience.bench.tasks.causal import padded
from gradience.bench.tasks.rows import column, files_of, items_columns, rows_of
from gradience.bench.tasks.task import (
    IGNORED,
    Encoded,
    Examinee,
    Task,
    no_labels,
    options_of,
    problems_of,
)
from gradience.errors import UnreadableError


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `perplexity`.

    Attributes
    ----------
    text : str
        Column of the documents' text in tables and JSON lines. In a `.txt` file documents are
        separated by blank lines.
    words : int
        Length of a window.
    id : str or None
        Column of the documents' ids; the running number by default.
    """

    text: str = "text"
    words: int = 128
    id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A stretch of a document."""

    id: str
    document: str
    text: str


def windows(document: str, text: str, words: int) -> list[Window]:
    """Stretches of `words` words; a rest of one word stays with the stretch before it.

    Examples
    --------
    >>> [w.text for w in windows("d", "a b c d e", 2)]
    ['a b', 'c d e']
    """
    split = text.split()
    starts = list(range(0, len(split), words))
    if len(starts) > 1 and len(split) - starts[-1] == 1:
        starts.pop()
    ends = [*starts[1:], len(split)][: len(starts)]
    return [
        Window(id=f"{document}:{n}", document=document, text=" ".join(split[start:end]))
        for n, (start, end) in enumerate(zip(starts, ends, strict=True))
        if end - start > 1  # one word has nothing to be predicted from
    ]


def check(settings: TaskSettings) -> list[str]:
    """Options, files, columns."""
    problems = problems_of(
        settings, Options, lambda: (_windows(settings, "train"), _windows(settings, "test"))
    )
    words = settings.options.get("words", 2)
    if isinstance(words, int) and words < 2:
        problems = [f"task.options.words is {words}, which is below 2"]
    return problems


def training(settings: TaskSettings, tokenizer: Any, max_length: int) -> Sequence[Encoded]:
    """One example per window; every token but the first is learned."""
    return [
        {"input_ids": ids, "labels": list(ids)}
        for ids in _tokens(tokenizer, _windows(settings, "train"), max_length)
    ]


def evaluate(settings: TaskSettings, examinee: Examinee) -> Items:
    """Minus the mean negative log-likelihood per token of each window."""
    found = _windows(settings, "test")[: examinee.limit]
    tokens = _tokens(examinee.tokenizer, found, examinee.max_length)
    scores = [0.0] * len(found)
    for chosen in examinee.batches(tokens):
        for i, score in zip(chosen, _score(examinee, [tokens[i] for i in chosen]), strict=True):
            scores[i] = score
    return Items(
        ids=tuple(window.id for window in found),
        scores=tuple(scores),
        clusters=tuple(window.document for window in found),
    )


def _score(examinee: Examinee, rows: Sequence[Sequence[int]]) -> list[float]:
    import torch  # noqa: PLC0415 - the checks need none
    from torch.nn.functional import cross_entropy  # noqa: PLC0415

    device = examinee.model.device
    ids, mask = (
        torch.tensor(x, device=device) for x in padded(rows, fill=examinee.tokenizer.pad_token_id)
    )
    targets = ids.masked_fill(mask == 0, IGNORED)[:, 1:]
    with torch.inference_mode():
        logits = examinee.model(input_ids=ids, attention_mask=mask).logits[:, :-1].float()
        losses = cross_entropy(
            logits.transpose(1, 2), targets, ignore_index=IGNORED, reduction="none"
        )
    means = losses.double().sum(dim=1) / (targets != IGNORED).sum(dim=1)
    return [-float(mean) for mean in means]


def _tokens(tokenizer: Any, found: Sequence[Window], max_length: int) -> list[list[int]]:
    tokens: list[list[int]] = tokenizer(
        [window.text for window in found], truncation=True, max_length=max_length
    )["input_ids"]
    for window, ids in zip(found, tokens, strict=True):
        if len(ids) < 2:
            raise UnreadableError(
                f"window {window.id} ({window.text[:40]!r}) has {len(ids)} tokens: there is "
                "nothing to predict",
                remedy="Use the tokenizer of the base model, or text that it can read.",
            )
    return tokens


def _windows(settings: TaskSettings, side: str) -> list[Window]:
    options = options_of(settings, Options)
    names = settings.train if side == "train" else settings.test
    plain = [name for name in names if name.endswith(".txt")]
    texts = [block for name in plain for block in _blocks(name)]
    rows = rows_of([name for name in names if name not in plain])
    texts += map(str, column(rows, options.text, source=f"task.{side}"))
    ids: Sequence[str] = [str(n) for n in range(len(texts))]
    if options.id is not None and not plain:
        ids, _ = items_columns(rows, options.id, None, source=f"task.{side}")
    found = [
        window
        for id_, text in zip(ids, texts, strict=True)
        for window in windows(id_, text, options.words)
    ]
    if not found:
        raise UnreadableError(
            f"task.{side} has no text of two words", remedy="Name a file with text."
        )
    return found


def _blocks(name: str) -> list[str]:
    try:
        text = Path(name).expanduser().read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableError(
            f"{name} cannot be read: {error}", remedy="Check the file; text must be UTF-8."
        ) from error
    blocks: list[list[str]] = [[]]
    for line in text.splitlines():
        if line.strip():
            blocks[-1].append(line)
        elif blocks[-1]:
            blocks.append([])
    return ["\n".join(block) for block in blocks if block]


PERPLEXITY = Task(
    description="plain text; score: minus the mean negative log-likelihood per token of a window",
    options=Options,
    model="causal_lm",
    metric=lambda settings: "negative log-likelihood per token",
    check=check,
    files=lambda settings: files_of((*settings.train, *settings.test)),
    test_items=lambda settings: len(_windows(settings, "test")),
    labels=no_labels,
    training=training,
    evaluate=evaluate,
)
