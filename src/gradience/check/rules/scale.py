"""What the change is multiplied with: alpha / r, or alpha / sqrt(r) for rsLoRA."""

import math
from collections.abc import Iterator

from gradience.adapter.config import DEFAULT_ALPHA, AdapterConfig
from gradience.check.finding_kinds import (
    ALPHA_LEFT_AT_DEFAULT,
    HIGH_RANK_WITHOUT_RSLORA,
    SCALE_LARGE,
    SCALE_ZERO,
    SCALES_DIFFER,
)
from gradience.check.records import Setup
from gradience.findings import Finding
from gradience.page import number

_LARGE = 16.0
_SMALL = 0.25
_APART = 4.0
_HIGH_RANK = 64


def scale(setup: Setup) -> Iterator[Finding]:
    """Findings about r, lora_alpha, their patterns and use_rslora."""
    config = setup.adapter
    if config is None or config.peft_type != "LORA" or config.r is None:
        return
    scales = _scales(config)
    general = scales[""]
    words = _formula(config)
    zero = [name for name, value in scales.items() if value == 0]
    if zero:
        where = f" for {', '.join(zero)}" if "" not in zero else ""
        yield SCALE_ZERO.found(f"lora_alpha is 0{where}")
        return
    largest = max(scales.values())
    if largest > _LARGE:
        yield SCALE_LARGE.found(f"the change is multiplied by {number(largest)} ({words})")
    unset = config.alpha is None or config.alpha == DEFAULT_ALPHA
    if unset and not config.use_rslora and general <= _SMALL:
        yield ALPHA_LEFT_AT_DEFAULT.found(
            f"r is {config.r} and lora_alpha is 8: the scale is {number(general)}"
        )
    elif config.r >= _HIGH_RANK and not config.use_rslora and general < 1:
        yield HIGH_RANK_WITHOUT_RSLORA.found(f"the scale is {number(general)} ({words})")
    apart = largest / min(scales.values())
    if config.rank_pattern and not config.alpha_pattern and apart >= _APART:
        yield SCALES_DIFFER.found(
            f"scales from {number(min(scales.values()))} to {number(largest)} by rank_pattern"
        )


def _scales(config: AdapterConfig) -> dict[str, float]:
    """By key of a pattern; "" for all other modules."""
    rank, alpha = config.r or 1, DEFAULT_ALPHA if config.alpha is None else config.alpha
    keys = dict.fromkeys(["", *config.rank_pattern, *config.alpha_pattern])
    return {
        key: config.alpha_pattern.get(key, alpha)
        / _divisor(config.rank_pattern.get(key, rank), rslora=config.use_rslora)
        for key in keys
    }


def _divisor(rank: int, *, rslora: bool) -> float:
    return math.sqrt(rank) if rslora else float(rank)


def _formula(config: AdapterConfig) -> str:
    alpha = DEFAULT_ALPHA if config.alpha is None else config.alpha
    root = f"sqrt({config.r})" if config.use_rslora else f"{config.r}"
    return f"{number(alpha)} / {root}"
