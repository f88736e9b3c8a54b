"""PowerShell: typographic quotes end a string as the plain one does, so all are doubled."""

import re

from gradience.storage.environment.exports.export import Export, comments
from gradience.storage.environment.layout import Layout

_QUOTES = re.compile("['\u2018\u2019\u201a\u201b]")


def render(layout: Layout) -> str:
    """`$env:` assignments for PowerShell."""
    lines = [*comments(layout)]
    for setting in layout.settings:
        value = _QUOTES.sub(lambda match: match[0] * 2, setting.value)
        lines.append(f"$env:{setting.name} = '{value}'")
    return "\n".join(lines) + "\n"


POWERSHELL = Export(
    name="powershell",
    title="PowerShell",
    render=render,
    usage="gradience env --format powershell | Out-String | Invoke-Expression",
)
