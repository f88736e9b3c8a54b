"""bash, and every POSIX shell: `eval "$(gradience env)"`.

No `set -e` and no function: the text is read by the user's own shell, which must go on as before.
"""

from gradience.storage.environment.exports.export import Export, comments, posix_quoted
from gradience.storage.environment.layout import Layout


def render(layout: Layout) -> str:
    """Export lines for a POSIX shell."""
    lines = [*comments(layout)]
    lines += [f"export {s.name}={posix_quoted(s.value)}" for s in layout.settings]
    return "\n".join(lines) + "\n"


BASH = Export(
    name="bash",
    title="bash and other POSIX shells",
    render=render,
    usage='eval "$(gradience env)"',
)
