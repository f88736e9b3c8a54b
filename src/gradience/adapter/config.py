"""adapter_config.json: the fields that decide the scale, checked; everything else kept as it is.

Every PEFT release writes another set of keys and nulls wherever it likes, so a key that is unknown
or null is fine. A value that decides a scale or a rank is never guessed at: `"r": "8"` is an error
that names the file, the key and the value.
"""

import json
import math
from collections.abc import Mapping
from typing import Any, Literal, NoReturn

import msgspec

from gradience.adapter.patterns import check_patterns, pattern_value
from gradience.adapter.peft_types import check_type
from gradience.errors import AdapterConfigError, cut, shown

LARGEST_CONFIG = 64 * 2**20
"""Bytes; a larger file is not read as a config."""

_LARGEST_RANK = 2**20
VALUE_REMEDY = "Correct the value, or save the adapter again with PEFT's save_pretrained."
"""What helps where a key has a value that cannot be meant."""

# Keys that decide the change, and are long enough to be known when they are misspelt.
_DECISIVE = (
    "lora_alpha", "use_rslora", "use_dora", "use_qalora", "use_bdlora", "lora_bias",
    "fan_in_fan_out", "rank_pattern", "alpha_pattern", "target_modules", "target_parameters",
    "modules_to_save", "enable_lora", "layer_replication", "qalora_group_size",
)  # fmt: skip
LORA_KEYS = frozenset((
    "alora_invocation_tokens", "alpha_pattern", "arrow_config", "auto_mapping",
    "base_model_name_or_path", "bias", "corda_config", "ensure_weight_tying", "eva_config",
    "exclude_modules", "fan_in_fan_out", "inference_mode", "init_lora_weights", "kasa_config",
    "layer_replication", "layers_pattern", "layers_to_transform", "loftq_config", "lora_alpha",
    "lora_bias", "lora_dropout", "lora_ga_config", "megatron_config", "megatron_core",
    "modules_to_save", "monteclora_config", "peft_type", "peft_version", "qalora_group_size", "r",
    "rank_pattern", "revision", "runtime_config", "target_modules", "target_parameters",
    "task_type", "trainable_token_indices", "use_bdlora", "use_dora", "use_qalora", "use_rslora",
    "velora_config",
))  # fmt: skip
"""Of LoraConfig (PEFT 0.21)."""

# With those of AdaLoRA, LoHa and LoKr: none of these is a slip of another.
_KNOWN = LORA_KEYS.union(_DECISIVE, ("alpha", "init_r", "init_weights"))
_NEAR = 0.8  # difflib's ratio: two letters swapped in a word of ten, and not the next key of PEFT
_MOST_KEYS, _LONGEST_TEXT = 100, 80  # a config may hold a million of them

DEFAULT_ALPHA = 8.0
"""What PEFT takes for LoRA, AdaLoRA, LoHa and LoKr when the config names no alpha."""


class AdapterConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What adapter_config.json says about scale and form.

    Attributes
    ----------
    source : str
        The file, for messages.
    peft_type : str
        LORA, ADALORA, LOHA or LOKR.
    r : int or None
        Rank (`init_r` for AdaLoRA); None when the file does not say.
    alpha : float or None
        `lora_alpha`, or `alpha` for LoHa and LoKr; None when the file does not say.
    rank_pattern, alpha_pattern : mapping
        Values by pattern, in the order of the file.
    kept_ranks : mapping
        AdaLoRA's `rank_pattern`: ranks left, by parameter name.
    target_modules : tuple of str, or str
        Names, or one regular expression.
    enable_lora : tuple of bool
        The fused form of 2023: which of the stacked projections are adapted.
    init : bool or str
        `init_lora_weights`.
    raw : mapping
        The whole file.
    """

    source: str
    peft_type: str = "LORA"
    r: int | None = None
    alpha: float | None = None
    use_rslora: bool = False
    use_dora: bool = False
    use_qalora: bool = False
    lora_bias: bool = False
    fan_in_fan_out: bool = False
    bias: Literal["none", "all", "lora_only"] = "none"
    rank_pattern: Mapping[str, int] = msgspec.field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = msgspec.field(default_factory=dict)
    kept_ranks: Mapping[str, int] = msgspec.field(default_factory=dict)
    target_modules: tuple[str, ...] | str = ()
    target_parameters: tuple[str, ...] = ()
    modules_to_save: tuple[str, ...] = ()
    enable_lora: tuple[bool, ...] = ()
    init: bool | str = True
    base_model: str | None = None
    base_revision: str | None = None
    raw: Mapping[str, Any] = msgspec.field(default_factory=dict)

    def rank_of(self, module: str) -> int | None:
        """The rank configured for a module of the base model; None when the config has none."""
        if self.r is None and not self.rank_pattern:
            return None
        return pattern_value(self.rank_pattern, module, self.r or 0) or None

    def alpha_of(self, module: str) -> float:
        """The alpha configured for a module, PEFT's default where the config names none."""
        default = DEFAULT_ALPHA if self.alpha is None else self.alpha
        return pattern_value(self.alpha_pattern, module, default)

    def block(self, key: str) -> Mapping[str, Any] | None:
        """A nested object such as `use_bdlora`; None where absent or null."""
        value = self.raw.get(key)
        if value is not None and not isinstance(value, dict):
            _bad(self.source, key, value, "an object")
        return value


def parse_config(content: bytes | Mapping[str, Any], source: str) -> AdapterConfig:
    """Check a config that was read already.

    Parameters
    ----------
    content : bytes or mapping
        The JSON text, or what it holds.
    source : str
        Named in every message.

    Raises
    ------
    AdapterConfigError
        If it is no JSON object, or holds a value that cannot be meant.
    UnsupportedAdapterError
        If its `peft_type` is one whose delta is not read.

    Examples
    --------
    >>> parse_config(b'{"peft_type": "LORA", "r": 8, "lora_alpha": 16}', "here").alpha
    16.0
    """
    raw = _decoded(content, source) if isinstance(content, bytes) else dict(content)
    peft_type = _peft_type(raw, source)
    check_type(peft_type, source)
    adalora = peft_type == "ADALORA"
    rank_pattern = _pattern(raw, "rank_pattern", source)
    alpha_pattern = _pattern(raw, "alpha_pattern", source)
    alpha_key = "alpha" if peft_type in ("LOHA", "LOKR") else "lora_alpha"
    kept = {k: _kept_rank(k, v, source) for k, v in rank_pattern.items()} if adalora else {}
    ranks = (
        {}
        if adalora
        else {k: _rank(f"rank_pattern.{k}", v, source) for k, v in rank_pattern.items()}
    )
    check_patterns([*ranks, *alpha_pattern], source)
    return AdapterConfig(
        source=source,
        peft_type=peft_type,
        r=_optional_rank(raw, "init_r" if adalora else "r", source),
        alpha=_optional_number(raw, alpha_key, source),
        use_rslora=_flag(raw, "use_rslora", source),
        use_dora=_flag(raw, "use_dora", source),
        use_qalora=_flag(raw, "use_qalora", source),
        lora_bias=_flag(raw, "lora_bias", source),
        fan_in_fan_out=_flag(raw, "fan_in_fan_out", source),
        bias=_bias(raw, source),
        rank_pattern=ranks,
        alpha_pattern={
            k: _number(f"alpha_pattern.{k}", v, source) for k, v in alpha_pattern.items()
        },
        kept_ranks=kept,
        target_modules=_targets(raw, source),
        target_parameters=_names(raw, "target_parameters", source),
        modules_to_save=_names(raw, "modules_to_save", source),
        enable_lora=_enabled(raw, source),
        init=_init(raw, source),
        base_model=_text(raw, "base_model_name_or_path", source),
        base_revision=_text(raw, "revision", source),
        raw=raw,
    )


def misspelt(raw: Mapping[str, Any]) -> dict[str, str]:
    """Keys that are nearly one of those which decide the change and are missing, with that one.

    Examples
    --------
    >>> misspelt({"peft_type": "LORA", "r": 8, "lora_alhpa": 16})
    {'lora_alhpa': 'lora_alpha'}
    """
    unknown = [key for key in raw if key not in _KNOWN and len(key) < _LONGEST_TEXT]
    if not unknown:
        return {}
    from difflib import get_close_matches  # noqa: PLC0415 - few configs have other keys

    missing = [key for key in _DECISIVE if raw.get(key) is None]
    close = {
        key: get_close_matches(key, missing, n=1, cutoff=_NEAR) for key in unknown[:_MOST_KEYS]
    }
    return {key: meant[0] for key, meant in close.items() if meant}


def _decoded(content: bytes, source: str) -> dict[str, Any]:
    if len(content) > LARGEST_CONFIG:
        raise AdapterConfigError(
            f"{source} is larger than {LARGEST_CONFIG >> 20} MiB: that is no adapter_config.json",
            remedy="Check that the config and the weights have not been swapped.",
        )

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise AdapterConfigError(
                    f"{source}: the key {key!r} occurs twice", remedy="Keep one of the two."
                )
            found[key] = value
        return found

    try:
        value = json.loads(content.decode("utf-8-sig"), object_pairs_hook=once)
        if b"\\u" in content:
            # Half of a pair, "\ud800": json takes it, and nothing can write it again.
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        lfs = content.startswith(b"version https://git-lfs")
        reason = "a Git LFS pointer, not the file" if lfs else f"not JSON: {error}"
        remedy = "Run `git lfs pull`." if lfs else "Save the adapter again with save_pretrained."
        raise AdapterConfigError(f"{source} is {reason}", remedy=remedy) from error
    if not isinstance(value, dict):
        raise AdapterConfigError(
            f"{source} holds {type(value).__name__}, not an object",
            remedy="Save the adapter again with save_pretrained.",
        )
    return value


def _bad(source: str, key: str, value: object, wanted: str) -> NoReturn:
    raise AdapterConfigError(
        f"{source}: `{cut(key)}` is {shown(value)}, which is not {wanted}", remedy=VALUE_REMEDY
    )


def _peft_type(raw: Mapping[str, Any], source: str) -> str:
    value = raw.get("peft_type")
    if value is None and "r" in raw and ("lora_alpha" in raw or "target_modules" in raw):
        return "LORA"
    if not isinstance(value, str):
        _bad(source, "peft_type", value, "the name of a PEFT type")
    return value.removeprefix("PeftType.").upper()


def _rank(key: str, value: object, source: str) -> int:
    if type(value) is not int or not 0 < value <= _LARGEST_RANK:
        _bad(source, key, value, "a whole number above 0")
    return value


def _optional_rank(raw: Mapping[str, Any], key: str, source: str) -> int | None:
    value = raw.get(key)
    return None if value is None else _rank(key, value, source)


def _kept_rank(key: str, value: object, source: str) -> int:
    if not isinstance(value, list) or not all(isinstance(kept, bool) for kept in value):
        _bad(source, f"rank_pattern.{key}", value, "a list of true and false")
    return sum(value)


def _number(key: str, value: object, source: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        _bad(source, key, value, "a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        _bad(source, key, value, "a finite number")
    return number


def _optional_number(raw: Mapping[str, Any], key: str, source: str) -> float | None:
    value = raw.get(key)
    return None if value is None else _number(key, value, source)


def _flag(raw: Mapping[str, Any], key: str, source: str) -> bool:
    value = raw.get(key)
    if value is not None and not isinstance(value, bool):
        _bad(source, key, value, "true or false")
    return bool(value)


def _text(raw: Mapping[str, Any], key: str, source: str) -> str | None:
    value = raw.get(key)
    if value is not None and not isinstance(value, str):
        _bad(source, key, value, "a text")
    return value or None


def _names(raw: Mapping[str, Any], key: str, source: str) -> tuple[str, ...]:
    value = raw.get(key)
    names = [value] if isinstance(value, str) else value or []
    if not isinstance(names, list | tuple | set) or not all(isinstance(n, str) for n in names):
        _bad(source, key, value, "a list of names")
    return tuple(names)


def _targets(raw: Mapping[str, Any], source: str) -> tuple[str, ...] | str:
    value = raw.get("target_modules")
    return value if isinstance(value, str) else _names(raw, "target_modules", source)


def _enabled(raw: Mapping[str, Any], source: str) -> tuple[bool, ...]:
    value = raw.get("enable_lora") or []
    if not isinstance(value, list) or not all(isinstance(on, bool) for on in value):
        _bad(source, "enable_lora", value, "a list of true and false")
    return tuple(value)


def _pattern(raw: Mapping[str, Any], key: str, source: str) -> Mapping[str, Any]:
    value = raw.get(key) or {}
    if not isinstance(value, Mapping) or not all(isinstance(k, str) for k in value):
        _bad(source, key, value, "an object")
    return value


def _bias(raw: Mapping[str, Any], source: str) -> Literal["none", "all", "lora_only"]:
    match raw.get("bias"):
        case None | "none":
            return "none"
        case "all":
            return "all"
        case "lora_only":
            return "lora_only"
        case value:
            _bad(source, "bias", value, "none, all or lora_only")


def _init(raw: Mapping[str, Any], source: str) -> bool | str:
    value = raw.get("init_lora_weights")
    if value is not None and not isinstance(value, bool | str):
        _bad(source, "init_lora_weights", value, "true, false or the name of an initialisation")
    return True if value is None else value
