"""zsh reads the same lines as bash: single quotes protect from its globbing and history too."""

from gradience.storage.environment.exports.bash import render
from gradience.storage.environment.exports.export import Export

ZSH = Export(
    name="zsh",
    title="zsh",
    render=render,
    usage='eval "$(gradience env --format zsh)"',
)
