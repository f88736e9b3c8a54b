"""A `.env` file: for python-dotenv, Docker Compose, and `docker run --env-file`.

They agree on plain values only. Docker's --env-file keeps quotes as part of the value, Compose and
python-dotenv strip them, and differ on backslashes and on `${...}`. So a plain value is written
plain, a space needs quotes, and what they read differently is refused.
"""

import re

from gradience.errors import UsageError
from gradience.storage.environment.exports.export import Export, comments
from gradience.storage.environment.layout import Layout

_PLAIN = re.compile(r"[\w./@%+,:~-]+")
_AMBIGUOUS = ("'", "\\", "$")


def render(layout: Layout) -> str:
    """`NAME=value` lines.

    Raises
    ------
    UsageError
        If a value holds a quote, a backslash or a dollar sign.
    """
    lines = [*comments(layout)]
    lines += [f"{s.name}={_value(s.name, s.value)}" for s in layout.settings]
    return "\n".join(lines) + "\n"


def _value(name: str, value: str) -> str:
    if _PLAIN.fullmatch(value):
        return value
    if any(character in value for character in _AMBIGUOUS):
        raise UsageError(
            f"{name}={value!r}: programs that read .env files disagree on quotes, backslashes and "
            "dollar signs",
            remedy="Use --root with a plainer path, or another --format.",
        )
    return f"'{value}'"


DOTENV = Export(
    name="dotenv",
    title=".env file (python-dotenv, Compose, docker run --env-file)",
    render=render,
    usage="gradience env --format dotenv > .env",
)
