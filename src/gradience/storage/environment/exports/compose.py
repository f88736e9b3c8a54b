"""Docker Compose: environment and a named volume; a dollar sign is doubled, or it interpolates."""

from gradience.storage.environment.exports.export import Export, comments, yaml_quoted
from gradience.storage.environment.layout import Layout


def render(layout: Layout) -> str:
    """A service with its environment and its volume, to merge into compose.yaml."""
    lines = [*comments(layout), "services:", "  train:", "    environment:"]
    lines += [f"      {s.name}: {_quoted(s.value)}" for s in layout.settings]
    lines += [
        "    volumes:",
        "      - type: volume",
        "        source: gradience-cache",
        f"        target: {_quoted(str(layout.root))}",
        "volumes:",
        "  gradience-cache: {}",
    ]
    return "\n".join(lines) + "\n"


def _quoted(value: str) -> str:
    return yaml_quoted(value.replace("$", "$$"))


COMPOSE = Export(
    name="compose",
    title="Docker Compose",
    render=render,
    where="elsewhere",
    platform="docker",
    usage="gradience env --platform docker --format compose > compose.cache.yaml",
)
