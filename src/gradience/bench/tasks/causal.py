"""Prompts and completions as tokens: what is learned is the completion, never the prompt.

The label of a prompt token is -100, and so is that of padding, which is always on the right in
training. Prompts are tokenised in one way for training and for generation.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from gradience.bench.tasks.task import IGNORED, Encoded
from gradience.errors import UnreadableError


def prompt_ids(tokenizer: Any, prompt: str) -> list[int]:
    """Tokens of a prompt, with what the tokenizer puts in front and without what it puts behind."""
    ids: list[int] = tokenizer(prompt)["input_ids"]
    while len(ids) > 1 and ids[-1] == tokenizer.eos_token_id:
        ids = ids[:-1]
    return ids


def prompt_and_completion(tokenizer: Any, prompt: str, completion: str, max_length: int) -> Encoded:
    """One training example: the completion and the end of the text are learned.

    An example above `max_length` loses the beginning of its prompt first, then the end of its
    completion.
    """
    head = prompt_ids(tokenizer, prompt)
    tail = tokenizer(completion, add_special_tokens=False)["input_ids"]
    if tokenizer.eos_token_id is not None:
        tail = [*tail, tokenizer.eos_token_id]
    tail = tail[: max_length - 1]
    head = head[-(max_length - len(tail)) :]
    return {"input_ids": [*head, *tail], "labels": [IGNORED] * len(head) + tail}


def examples(
    tokenizer: Any, pairs: Iterable[tuple[str, str]], max_length: int
) -> Sequence[Encoded]:
    """Training examples of (prompt, completion) pairs.

    Raises
    ------
    UnreadableError
        If there is none, or one has nothing to learn.
    """
    found = [prompt_and_completion(tokenizer, p, c, max_length) for p, c in pairs]
    if not found:
        raise UnreadableError("task.train has no rows", remedy="Name a file with data.")
    for number, example in enumerate(found, start=1):
        if all(label == IGNORED for label in example["labels"]):
            raise UnreadableError(
                f"task.train: row {number} has an empty completion",
                remedy="Remove the row, or name the right column.",
            )
    return found


def padded(
    rows: Sequence[Sequence[int]], *, fill: int, left: bool = False
) -> tuple[list[list[int]], list[list[int]]]:
    """Rows of tokens of one length, and their attention masks.

    Examples
    --------
    >>> padded([[5, 6], [7]], fill=0, left=True)
    ([[5, 6], [0, 7]], [[1, 1], [0, 1]])
    """
    longest = max(map(len, rows))
    ids, masks = [], []
    for row in rows:
        gap = longest - len(row)
        filled, mask = [fill] * gap, [0] * gap
        ids.append([*filled, *row] if left else [*row, *filled])
        masks.append([*mask, *[1] * len(row)] if left else [*[1] * len(row), *mask])
    return ids, masks
