"""GSM8K: grade-school word problems, solved in words; an item is right if its number is.

The file is OpenAI's: `question`, and `answer` with the number behind `####`. The model writes its
solution greedily, and the number it ends with is compared with the gold number as a decimal, so
that 18, 18.00 and $18 are one answer.

Cobbe et al., "Training Verifiers to Solve Math Word Problems", arXiv:2110.14168, 2021.
"""

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Literal

import msgspec

from gradience.bench.records import Items
from gradience.bench.settings import TaskSettings
from gradience.bench.tasks.causal import examples, padded, prompt_ids
from gradience.bench.tasks.rows import Row, column, files_of, items_columns, rows_of
from gradience.bench.tasks.task import (
    Encoded,
    Examinee,
    Task,
    no_labels,
    options_of,
    problems_of,
)
from gradience.errors import UnreadableError

_MARK = "####"
# A minus right after a digit or a bracket is a subtraction, not a sign.
_NUMBER = re.compile(
    r"(?<![\d)])[-\u2212]?\$?[-\u2212]?"
    r"(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
)
_CALCULATION = re.compile(r"<<[^>]*>>")
_TRAINING_PARTS = ("question", "answer")


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    r"""Options of `gsm8k`.

    Attributes
    ----------
    prompt : str
        With `{question}`.
    shots : int
        The first so many training examples are written before each test question.
    max_new_tokens : int
        Longest solution.
    number : str
        marked_or_last: the number behind `####`, or the last one where there is no mark. marked:
        a solution without the mark is wrong.
    stop : tuple of str
        A solution ends where one of these begins, such as the next question of a base model.
    calculations : bool
        Whether the training answers keep their `<<48/2=24>>` notes.
    id, cluster : str or None
        Columns of the items' ids, and of what items share.
    """

    prompt: str = "Question: {question}\nAnswer:"
    shots: int = 0
    max_new_tokens: int = 256
    number: Literal["marked_or_last", "marked"] = "marked_or_last"
    stop: tuple[str, ...] = ("\nQuestion:",)
    calculations: bool = True
    id: str | None = None
    cluster: str | None = None


def gold_number(answer: str) -> Decimal:
    """The number behind `####` of a GSM8K answer.

    Raises
    ------
    UnreadableError
        If there is none.

    Examples
    --------
    >>> gold_number("He pays 2 * $500 = $1,000.\\n#### 1,000")
    Decimal('1000')
    """
    number = _first_number(answer.rpartition(_MARK)[2]) if _MARK in answer else None
    if number is None:
        raise UnreadableError(
            f"the answer {answer[-60:]!r} has no number behind {_MARK}",
            remedy="Give GSM8K's own jsonl files, or answers of the same form.",
        )
    return number


def found_number(solution: str, rule: str, stop: Sequence[str] = ()) -> Decimal | None:
    """The number that a solution ends with; None where it has none.

    Examples
    --------
    >>> found_number("She has 3 - 5 apples.\\n#### -$2.50.", "marked")
    Decimal('-2.50')
    >>> found_number("So he pays $1,250.", "marked_or_last")
    Decimal('1250')
    """
    for text in stop:
        solution = solution.partition(text)[0]
    if _MARK in solution:
        return _first_number(solution.partition(_MARK)[2])
    if rule == "marked":
        return None
    numbers = _NUMBER.findall(solution)
    return _decimal(numbers[-1]) if numbers else None


def check(settings: TaskSettings) -> list[str]:
    """Options, files, columns, the prompt, and a number in every gold answer."""
    problems = problems_of(settings, Options, lambda: _read(settings))
    prompt = settings.options.get("prompt", Options().prompt)
    if isinstance(prompt, str) and "{question}" not in prompt:
        problems.append(f"task.options.prompt is {prompt!r}, which has no {{question}}")
    for key, least in (("shots", 0), ("max_new_tokens", 1)):
        value = settings.options.get(key, least)
        if isinstance(value, int) and value < least:
            problems.append(f"task.options.{key} is {value}, which is below {least}")
    return problems


def training(settings: TaskSettings, tokenizer: Any, max_length: int) -> Sequence[Encoded]:
    """One example per row: the prompt is given, the solution and its number are learned."""
    options = options_of(settings, Options)
    rows = rows_of(settings.train)
    pairs = [(_prompt(options, row), _solution(options, row)) for row in rows]
    return examples(tokenizer, pairs, max_length)


def evaluate(settings: TaskSettings, examinee: Examinee) -> Items:
    """1 where the number of the greedy solution is the gold one, else 0."""
    options = options_of(settings, Options)
    rows = rows_of(settings.test)[: examinee.limit]
    shots = _shots(options, settings)
    prompts = [prompt_ids(examinee.tokenizer, shots + _prompt(options, row)) for row in rows]
    scores = [0.0] * len(rows)
    for chosen in examinee.batches(prompts):
        solutions = generate(examinee, [prompts[i] for i in chosen], options.max_new_tokens)
        for i, solution in zip(chosen, solutions, strict=True):
            found = found_number(solution, options.number, options.stop)
            scores[i] = float(found is not None and found == gold_number(rows[i]["answer"]))
    ids, clusters = items_columns(rows, options.id, options.cluster, source="task.test")
    return Items(ids=ids, scores=tuple(scores), clusters=clusters)


def generate(examinee: Examinee, prompts: Sequence[Sequence[int]], longest: int) -> list[str]:
    """Greedy continuations; prompts are padded on the left, so that each ends where it goes on."""
    import torch  # noqa: PLC0415 - the checks need none
    from transformers import GenerationConfig  # noqa: PLC0415

    tokenizer, device = examinee.tokenizer, examinee.model.device
    ids, mask = padded(prompts, fill=tokenizer.pad_token_id, left=True)
    plan = GenerationConfig(
        max_new_tokens=longest,
        do_sample=False,
        num_beams=1,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.inference_mode():
        written = examinee.model.generate(
            input_ids=torch.tensor(ids, device=device),
            attention_mask=torch.tensor(mask, device=device),
            generation_config=plan,
        )
    texts: list[str] = tokenizer.batch_decode(written[:, len(ids[0]) :], skip_special_tokens=True)
    return texts


def _read(settings: TaskSettings) -> None:
    options = options_of(settings, Options)
    for key, names in (("train", settings.train), ("test", settings.test)):
        rows = rows_of(names)
        if not rows:
            raise UnreadableError(f"task.{key} has no rows", remedy="Name a file with data.")
        for part in _TRAINING_PARTS:
            column(rows, part, source=f"task.{key}")
        for row in rows:
            gold_number(row["answer"])
    items_columns(rows, options.id, options.cluster, source="task.test")


def _prompt(options: Options, row: Row) -> str:
    return options.prompt.replace("{question}", str(row["question"]))


def _solution(options: Options, row: Row) -> str:
    answer = str(row["answer"])
    return " " + (answer if options.calculations else _CALCULATION.sub("", answer))


def _shots(options: Options, settings: TaskSettings) -> str:
    rows = rows_of(settings.train)[: options.shots] if options.shots else []
    return "".join(f"{_prompt(options, row)}{_solution(options, row)}\n\n" for row in rows)


def _first_number(text: str) -> Decimal | None:
    found = _NUMBER.search(text)
    return None if found is None else _decimal(found.group())


def _decimal(text: str) -> Decimal:
    return Decimal(text.replace("\u2212", "-").replace("$", "").replace(",", ""))


GSM8K = Task(
    description="word problems solved in words; score: exact match of the number",
    options=Options,
    model="causal_lm",
    metric=lambda settings: "exact_match",
    check=check,
    files=lambda settings: files_of((*settings.train, *settings.test)),
    test_items=lambda settings: len(rows_of(settings.test)),
    labels=no_labels,
    training=training,
    evaluate=evaluate,
)
