"""Dockerfile lines: directories made under any /bin/sh, one VOLUME, ENV values escaped.

`RUN mkdir -p x/{a,b}` makes one directory named `{a,b}` where /bin/sh is dash, so every path is
written out. VOLUME comes after RUN: what a later layer writes below a volume is lost.
"""

import json

from gradience.errors import UsageError
from gradience.storage.environment.exports.export import Export, comments, posix_quoted
from gradience.storage.environment.layout import Layout


def render(layout: Layout) -> str:
    """RUN, VOLUME and ENV lines.

    Raises
    ------
    UsageError
        If the volume's path holds what VOLUME would expand or unquote.
    """
    if any(c in str(layout.root) for c in "$'\"\\<"):
        raise UsageError(
            f"{str(layout.root)!r}: VOLUME reads quotes, backslashes and dollars in its own way",
            remedy="Use --root with a plainer path.",
        )
    lines = [*comments(layout)]
    made = [posix_quoted(d) for d in layout.directories]
    lines.append("RUN mkdir -p -- \\\n      " + " \\\n      ".join(made))
    volume = json.dumps([str(layout.root)], ensure_ascii=False)
    lines.append(f"VOLUME {volume}")
    pairs = [f'{s.name}="{_escaped(s.value)}"' for s in layout.settings]
    lines.append("ENV " + " \\\n    ".join(pairs))
    return "\n".join(lines) + "\n"


def _escaped(value: str) -> str:
    """For double quotes in ENV, where `$` starts a build variable."""
    return "".join("\\" + c if c in '\\"$' else c for c in value)


DOCKERFILE = Export(
    name="dockerfile",
    title="Dockerfile",
    render=render,
    where="elsewhere",
    platform="docker",
    usage="gradience env --platform docker --format dockerfile >> Dockerfile",
)
