"""A static file with the export lines, and one guarded line that reads it when a shell starts.

Nothing is computed at start-up: the file is plain text, and the line reads it only where it is
there, so a lost file never breaks a login. The line stands at the top, because the .bashrc of most
images ends at once for shells without a prompt, such as those of `ssh host command`. Every other
byte of the profile stays as it was; links are followed, so a linked dotfile stays a link.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gradience import files
from gradience.errors import StorageError, UsageError
from gradience.storage.environment.exports import EXPORTS
from gradience.storage.environment.exports.export import posix_quoted
from gradience.storage.environment.exports.fish import quoted as fish_quoted
from gradience.storage.environment.layout import Layout, check_path
from gradience.storage.environment.remembered import remember, remembered_file

SHELLS = ("bash", "zsh", "fish")
_MARK = "# gradience env"
_NEW = " (gradience made this file)"
_LINE = re.compile(rb"(?m)^if \[ -r [^\n]*; fi # gradience env( \(gradience made this file\))?\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """What changed.

    Attributes
    ----------
    written, removed : tuple of Path
        Files of Gradience's own, and profiles, that were changed or removed.
    unchanged : tuple of Path
        Profiles that were as they should be.
    overrides : tuple of str
        `FILE:LINE: text`: lines of profiles that set a variable of the layout after ours.
    """

    written: tuple[Path, ...] = ()
    removed: tuple[Path, ...] = ()
    unchanged: tuple[Path, ...] = ()
    overrides: tuple[str, ...] = ()


def shell_of(environ: Mapping[str, str]) -> str:
    """The user's shell, from `$SHELL`.

    Raises
    ------
    UsageError
        If it is none of bash, zsh and fish.
    """
    name = Path(environ.get("SHELL", "")).name
    if name in SHELLS:
        return name
    raise UsageError(
        f"$SHELL is {environ.get('SHELL', '')!r}: not bash, zsh or fish",
        remedy="Name the shell: --install --format bash|zsh|fish.",
    )


def install(layout: Layout, shell: str, environ: Mapping[str, str], home: Path) -> Installed:
    """Write the static file, and the line that reads it; a second time changes nothing.

    Raises
    ------
    StorageError
        If a profile is read-only, or cannot be written.
    UsageError
        If the shell is not one of `SHELLS`, or the path of the static file cannot be quoted.
    """
    if shell not in SHELLS:
        raise UsageError(
            f"--install writes for {', '.join(SHELLS)}, not for {shell!r}",
            remedy="Redirect the output to a file in place of it.",
        )
    static = static_file(shell, environ, home)
    check_path(str(static))
    profiles = [] if shell == "fish" else list(_profiles(shell, environ, home))
    for profile in profiles:
        _check_writable(profile)
    written, unchanged = [], []
    text = _static_text(layout, shell).encode()
    if _same_settings(_content(static), text):
        unchanged.append(static)
    else:
        written += _remembered(static, environ, home)
        files.replace(static, text)
        written.append(static)
    for profile in profiles:
        (written if _add_line(profile, static) else unchanged).append(profile)
    return Installed(
        written=tuple(written),
        unchanged=tuple(unchanged),
        overrides=tuple(_overrides(layout, profiles)),
    )


def uninstall(environ: Mapping[str, str], home: Path) -> Installed:
    """Remove the lines and the files of every shell; profiles that we made go too.

    Raises
    ------
    StorageError
        If a profile is read-only, or cannot be written.
    """
    removed, written = [], []
    profiles = [p for p in _all_profiles(environ, home) if _LINE.search(_content(p) or b"")]
    for profile in profiles:
        _check_writable(profile)
    for profile in profiles:
        content = _content(profile) or b""
        rest = _LINE.sub(b"", content)
        if not rest and _NEW.encode() in content:
            files.remove(_target(profile))
            removed.append(profile)
        else:
            _rewrite(profile, rest)
            written.append(profile)
    for shell in SHELLS:
        static = static_file(shell, environ, home)
        if static.exists():
            written += _remembered(static, environ, home)
            files.remove(static)
            removed.append(static)
    files.remove_empty(static_file("bash", environ, home).parent)
    return Installed(written=tuple(written), removed=tuple(removed))


def _remembered(static: Path, environ: Mapping[str, str], home: Path) -> list[Path]:
    """Keep the names of caches that a static file leads to; the file for that, if it changed."""
    kept = former_file(environ, home)
    return [kept] if remember(_content(static) or b"", kept) else []


def former_file(environ: Mapping[str, str], home: Path) -> Path:
    """What names the caches of layouts that are installed no longer."""
    return remembered_file(static_file("bash", environ, home).parent)


def naming(old: str, environ: Mapping[str, str], home: Path) -> tuple[Path, ...]:
    """Installed files that set a variable to a directory, or to something in it."""
    return tuple(path for path, _ in _renamed(old, old, environ, home))


def renamed(old: str, new: str, environ: Mapping[str, str], home: Path) -> tuple[Path, ...]:
    """Let installed files name the new place of a directory; those that were changed.

    Raises
    ------
    StorageError
        If one of them cannot be read or written.
    """
    changed = []
    for path, content in _renamed(old, new, environ, home):
        files.replace(path, content, mode=path.stat().st_mode & 0o7777)
        changed.append(path)
    return tuple(changed)


def _renamed(
    old: str, new: str, environ: Mapping[str, str], home: Path
) -> Iterator[tuple[Path, bytes]]:
    """Files that name the old place, and what they would say."""
    for shell, quoted in (("bash", posix_quoted), ("fish", fish_quoted)):
        path = static_file(shell, environ, home)
        before, after = (os.fsencode(quoted(place)[1:-1]) for place in (old, new))
        pattern = rb"(?m)^((?:export \w+=|set -gx \w+ )')" + re.escape(before) + rb"(?=['/])"
        replacement = rb"\1" + after.replace(b"\\", b"\\\\")
        content, count = re.subn(pattern, replacement, _content(path) or b"")
        if count:
            yield path, content


def static_file(shell: str, environ: Mapping[str, str], home: Path) -> Path:
    """Where the lines are kept: fish reads its own directory, the others share a POSIX file."""
    config = Path(environ.get("XDG_CONFIG_HOME") or "")
    config = config if config.is_absolute() else home / ".config"
    if shell == "fish":
        return config / "fish" / "conf.d" / "gradience.fish"
    return config / "gradience" / "env.sh"


def _static_text(layout: Layout, shell: str) -> str:
    text = EXPORTS["fish" if shell == "fish" else "bash"].render(layout)
    temporary = layout.values.get("TMPDIR")
    if temporary is None:
        return text
    # A disk that is wiped at a stop takes TMPDIR with it, and Python then uses /tmp, unasked. The
    # test costs no process; only a missing directory does.
    if shell == "fish":
        return text + 'test -d "$TMPDIR"; or mkdir -p -- "$TMPDIR" 2>/dev/null\n'
    return text + '[ -d "$TMPDIR" ] || mkdir -p -- "$TMPDIR" 2>/dev/null || :\n'


def _same_settings(old: bytes | None, new: bytes) -> bool:
    """Whether two static files set the same; comments name the free space, which moves."""
    return old is not None and _settings(old) == _settings(new)


def _settings(text: bytes) -> list[bytes]:
    return [line for line in text.splitlines() if not line.startswith(b"#")]


def _profiles(shell: str, environ: Mapping[str, str], home: Path) -> Iterator[Path]:
    """The files that a shell reads at its start.

    bash reads .bashrc with a prompt, and the first of three files at login. zsh reads .zshenv
    always, from ZDOTDIR where that is set.
    """
    if shell == "bash":
        yield home / ".bashrc"
        login = (home / ".bash_profile", home / ".bash_login", home / ".profile")
        yield next((path for path in login if path.exists()), login[-1])
        return
    yield home / ".zshenv"
    moved = Path(environ.get("ZDOTDIR") or "")
    if moved.is_absolute() and moved != home:
        yield moved / ".zshenv"


def _all_profiles(environ: Mapping[str, str], home: Path) -> Iterator[Path]:
    yield from (home / name for name in (".bashrc", ".bash_profile", ".bash_login", ".profile"))
    yield from _profiles("zsh", environ, home)


def _add_line(profile: Path, static: Path) -> bool:
    """Put the line at the top; False where it was there."""
    content = _content(profile)
    made = _NEW if content is None or (not content and not profile.exists()) else ""
    old = _LINE.search(content or b"")
    if old is not None and old[1]:
        made = _NEW
    quoted = posix_quoted(str(static))
    line = f"if [ -r {quoted} ]; then . {quoted}; fi {_MARK}{made}\n".encode()
    rest = _LINE.sub(b"", content or b"")
    # A first line with `#!` says which program reads the file: it stays the first.
    head, sep, tail = rest.partition(b"\n") if rest.startswith(b"#!") else (b"", b"", rest)
    if rest.startswith(b"#!") and not sep:
        head, sep, tail = b"", b"", rest
    new = head + sep + line + tail
    if new == content:
        return False
    _rewrite(profile, new)
    return True


def _rewrite(profile: Path, content: bytes) -> None:
    """Replace what a profile, or the file it links to, holds; permissions stay."""
    target = _target(profile)
    mode = target.stat().st_mode & 0o7777 if target.exists() else 0o644
    files.replace(target, content, mode=mode)


def _target(profile: Path) -> Path:
    """What a linked dotfile links to, whether it is there or not."""
    return profile.resolve() if profile.is_symlink() else profile


def _check_writable(profile: Path) -> None:
    """A read-only dotfile is meant so, or made by a tool that owns it: it is left alone."""
    _content(profile)  # a directory or a loop of links is refused before anything is written
    target = _target(profile)
    if target.exists() and not target.stat().st_mode & 0o200:
        raise StorageError(
            f"{profile} is read-only",
            remedy="Make it writable (chmod u+w), or add the lines of `gradience env` where its "
            "content comes from.",
        )


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(
            f"{path} cannot be read: {error.strerror or error}",
            remedy="Make it a file that this user can read, or name another --format.",
        ) from error


def _overrides(layout: Layout, profiles: list[Path]) -> Iterator[str]:
    """Lines after ours that set one of our variables: they win."""
    names = "|".join(layout.values)
    pattern = re.compile(rf"^\s*(?:export\s+)?(?:{names})=".encode())
    for profile in profiles:
        for number, line in enumerate((_content(profile) or b"").splitlines(), start=1):
            if pattern.match(line):
                yield f"{profile}:{number}: {line.decode('utf-8', 'replace').strip()}"
