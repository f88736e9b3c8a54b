"""Values of the training that cannot be: texts where a number belongs, NaN, a sign it cannot have.

Silent about what TrainingArguments or torch take, wise or not, and about "auto", which DeepSpeed
fills in. A text that reads as a number is one: TRL and others convert it.
"""

import math
import sys
from collections.abc import Callable, Iterator, Mapping

from gradience.check.finding_kinds import VALUE_IMPOSSIBLE
from gradience.check.records import Setup
from gradience.errors import shown
from gradience.findings import Finding

_Wanted = tuple[str, Callable[[float], bool]]

_NUMBER: _Wanted = ("a number", lambda x: not math.isnan(x))
_FINITE: _Wanted = ("a finite number", math.isfinite)
_WHOLE: _Wanted = ("a whole number", lambda x: x.is_integer())
_COUNT: _Wanted = ("a whole number above 0", lambda x: x > 0 and x.is_integer())
_COUNT_OR_NONE: _Wanted = ("a whole number, 0 or more", lambda x: x >= 0 and x.is_integer())
_AMOUNT: _Wanted = ("a finite number, 0 or more", lambda x: 0 <= x < math.inf)
_SHARE: _Wanted = ("a number from 0 to 1", lambda x: 0 <= x <= 1)
_DECAY: _Wanted = ("a number from 0 to below 1", lambda x: 0 <= x < 1)
_INTERVAL: _Wanted = (
    "a whole number of steps, or a share of the run from 0 to 1",
    lambda x: 0 <= x <= 1 or (x > 0 and x.is_integer()),
)

_WANTED: Mapping[str, _Wanted] = {
    "learning_rate": _AMOUNT,
    "weight_decay": _AMOUNT,
    "adam_beta1": _DECAY,
    "adam_beta2": _DECAY,
    "adam_epsilon": _AMOUNT,
    "max_grad_norm": _NUMBER,  # infinite: it clips nothing
    "label_smoothing_factor": _SHARE,
    "warmup_ratio": _SHARE,
    "warmup_steps": _AMOUNT,
    "num_train_epochs": _FINITE,  # any sign: max_steps may decide
    "max_steps": _WHOLE,  # -1, and all below 1: the epochs decide
    "per_device_train_batch_size": _COUNT,
    "per_device_eval_batch_size": _COUNT,
    "gradient_accumulation_steps": _COUNT,
    "save_total_limit": _WHOLE,  # below 1: no limit
    "dataloader_num_workers": _COUNT_OR_NONE,
    "seed": _COUNT_OR_NONE,
}
_INTERVALS = {
    "save_steps": ("save_strategy", "steps"),
    "logging_steps": ("logging_strategy", "steps"),
    "eval_steps": ("eval_strategy", "no"),
}
"""Read where their strategy, which has this default, is "steps"."""

_LONGEST = 60


def values(setup: Setup) -> Iterator[Finding]:
    """A finding for each value that the key cannot have, under the name that the user wrote."""
    wanted = {**_WANTED, **{name: _interval(setup, name) for name in _INTERVALS}}
    for name, value in setup.training.items():
        if name not in wanted or value is None or value == "auto":
            continue
        words, holds = wanted[name]
        number = _number(value)
        if number is None or not holds(number):
            key, told = setup.written.get(name, name), shown(value, _LONGEST)
            yield VALUE_IMPOSSIBLE.found(f"{key} is {told}, which is not {words}.")


def _interval(setup: Setup, name: str) -> _Wanted:
    strategy, default = _INTERVALS[name]
    return _INTERVAL if setup.training.get(strategy, default) == "steps" else _NUMBER


def _number(value: object) -> float | None:
    """None for what is no number. A whole number that no float holds is infinite."""
    if isinstance(value, int) and not isinstance(value, bool):
        small = abs(value) <= sys.float_info.max
        return float(value) if small else math.inf if value > 0 else -math.inf
    if not isinstance(value, float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None
