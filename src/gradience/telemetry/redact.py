"""What may go into a log that people share: no long texts, no secrets, no NaN. Pure."""

import math
from collections.abc import Collection, Mapping
from typing import Any

LONGEST = 256
_DEEPEST = 8
_SECRET = ("token", "api_key", "password", "secret")


def finite(numbers: Mapping[str, float]) -> tuple[dict[str, float], dict[str, str]]:
    """Numbers that JSON can hold, and the names of the others with what stood there.

    Examples
    --------
    >>> finite({"loss": 1.5, "grad_norm": float("nan")})
    ({'loss': 1.5}, {'grad_norm': 'nan'})
    """
    good = {name: value for name, value in numbers.items() if math.isfinite(value)}
    return good, {name: str(value) for name, value in numbers.items() if name not in good}


def redacted(value: Any, *, allow: Collection[str] = ()) -> Any:
    """Plain JSON data, with texts of more than 256 characters and secrets left out.

    Parameters
    ----------
    value : object
        Mappings and sequences are walked; what JSON does not know becomes its text.
    allow : collection of str
        Keys whose texts may be long.

    Examples
    --------
    >>> redacted({"prompt": "x" * 300, "hub_token": "hf_abc", "r": 8, "set": {"q_proj"}})
    {'prompt': '<redacted: 300 characters>', 'hub_token': '<redacted>', 'r': 8, 'set': ['q_proj']}
    """
    return _plain(value, "", allow, _DEEPEST)


def _plain(value: Any, key: str, allow: Collection[str], deep: int) -> Any:
    if isinstance(value, str) and key.lower().endswith(_SECRET):
        return "<redacted>"
    if value is None or isinstance(value, bool | int):
        return _whole(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if deep and isinstance(value, Mapping):
        return {
            shortened(str(name)): _plain(inner, str(name), allow, deep - 1)
            for name, inner in value.items()
        }
    if deep and isinstance(value, list | tuple | set | frozenset):
        # A set has no order: the same config shall give the same line.
        ordered = sorted(value, key=str) if isinstance(value, set | frozenset) else value
        return [_plain(inner, key, allow, deep - 1) for inner in ordered]
    text = _text(value)
    return text if key in allow else shortened(text)


def _whole(value: bool | int | None) -> Any:
    # Beyond 64 bits readers disagree about what a number is.
    return value if value is None or -(2**63) <= value < 2**64 else str(value)


def _text(value: Any) -> str:
    inner = getattr(value, "value", value)  # of an enumeration
    return str(inner).encode("utf-8", "backslashreplace").decode()  # half a surrogate is no UTF-8


def shortened(text: str) -> str:
    """The text, or how long it was if it is longer than 256 characters."""
    return text if len(text) <= LONGEST else f"<redacted: {len(text)} characters>"
