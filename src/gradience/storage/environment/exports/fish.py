"""fish: exported global variables; only a backslash and a quote are special in single quotes."""

from gradience.storage.environment.exports.export import Export, comments
from gradience.storage.environment.layout import Layout


def render(layout: Layout) -> str:
    """`set -gx` lines for fish."""
    lines = [*comments(layout)]
    lines += [f"set -gx {s.name} {quoted(s.value)}" for s in layout.settings]
    return "\n".join(lines) + "\n"


def quoted(value: str) -> str:
    """A value in fish's single quotes."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


FISH = Export(
    name="fish",
    title="fish",
    render=render,
    usage="gradience env --format fish | source",
)
