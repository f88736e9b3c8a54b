"""systemd: a drop-in; a percent sign is a specifier there, a backslash an escape."""

from gradience.storage.environment.exports.export import Export, comments
from gradience.storage.environment.layout import Layout


def render(layout: Layout) -> str:
    """A drop-in with the unit's environment, which waits for the disk to be mounted."""
    lines = [*comments(layout), "[Unit]", f"RequiresMountsFor={quoted(str(layout.root))}"]
    lines.append("[Service]")
    lines += [f"Environment={quoted(f'{s.name}={s.value}')}" for s in layout.settings]
    # systemd puts a variable in braces into one word, whatever it holds.
    made = [f"${{{s.name}}}" for s in layout.settings if s.kind == "directory"]
    lines.append(f"ExecStartPre=/bin/mkdir -p -- {' '.join(made)}")
    return "\n".join(lines) + "\n"


def quoted(text: str) -> str:
    """Double-quoted, with systemd's escapes and specifiers taken out."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


SYSTEMD = Export(
    name="systemd",
    title="systemd drop-in",
    render=render,
    where="elsewhere",
    usage="gradience env --format systemd > /etc/systemd/system/train.service.d/cache.conf",
)
