"""What shell profiles and dotenv files set. Parsing is pure; nothing in them is executed."""

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from gradience.storage.doctor.facts import Setting
from gradience.storage.doctor.values import expanded
from gradience.storage.environment.profile import static_file

_NAME = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_IN_HOME = (
    ".profile", ".bash_profile", ".bash_login", ".bashrc", ".zshenv", ".zprofile", ".zshrc",
    ".config/fish/config.fish",
)  # fmt: skip
_SOURCED = re.compile(
    r"""(?:^|[;&\s])(?:\.|source)\s+(?:'([^']+)'|"([^"]+)"|([^\s;"'&|]+))""", re.M
)
_LARGEST = 1_000_000


def read_profiles(home: Path, environ: Mapping[str, str]) -> tuple[Setting, ...]:
    """Settings of the files that a login reads: the machine's, then the user's, in that order."""
    found: list[Setting] = []
    machine = [Path("/etc/environment"), *sorted(Path("/etc/profile.d").glob("*.sh"))]
    ours = static_file("fish", environ, home)
    for file in [*machine, *(home / name for name in _IN_HOME), ours]:
        found += _with_sourced(file, environ, home)
    return tuple(found)


def read_dotenv(file: Path) -> tuple[Setting, ...]:
    """Settings of a dotenv file; empty where there is none."""
    return tuple(parse(_text(file), str(file)))


def _with_sourced(file: Path, environ: Mapping[str, str], home: Path) -> Iterator[Setting]:
    text = _text(file)
    yield from parse(text, str(file))
    for match in _SOURCED.finditer(text):
        name = match[1] or match[2] or match[3]
        sourced = Path(expanded(name, {**environ, "HOME": str(home)}, home))
        if sourced.is_absolute() and sourced != file:
            yield from parse(_text(sourced), str(sourced))


def _text(file: Path) -> str:
    try:
        if not file.is_file() or file.stat().st_size > _LARGEST:
            return ""
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def parse(text: str, file: str) -> list[Setting]:
    """Assignments in a shell file, a fish file, or a dotenv file.

    Parameters
    ----------
    text : str
    file : str
        Its name; `.fish` files and `/etc/environment` have rules of their own.

    Examples
    --------
    >>> [(s.name, s.value, s.exported) for s in parse("export HF_HOME='/x y' A=1\\nB=2", "f.sh")]
    [('HF_HOME', '/x y', True), ('A', '1', True), ('B', '2', False)]
    >>> parse("set -gx HF_HOME /x", "config.fish")[0].value
    '/x'
    """
    found: list[Setting] = []
    plain = Path(file).name in {"environment"} or ".env" in Path(file).name
    later: set[str] = set()
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            continue
        later.update(w for w in words[1:] if words[0] == "export" and "=" not in w)
        for name, value, exported in _settings(words):
            found.append(
                Setting(name=name, value=value, file=file, line=number, exported=exported or plain)
            )
    return [_exported(s) if s.name in later else s for s in found]


def _settings(words: list[str]) -> Iterator[tuple[str, str, bool]]:
    if not words:
        return
    if words[0] == "set" and len(words) > 2 and words[1].startswith("-"):
        names = [w for w in words[1:] if not w.startswith("-")]
        if len(names) > 1:
            yield names[0], names[1], "x" in words[1]
        return
    exported = words[0] in {"export", "declare", "typeset"} and "-x" not in words[2:]
    rest = [w for w in words[1:] if not w.startswith("-")] if exported else words
    matches = [_NAME.fullmatch(word) for word in rest]
    if exported or all(matches):  # `A=1 command` sets it for that command only
        yield from ((m[1], m[2], exported) for m in matches if m)


def _exported(setting: Setting) -> Setting:
    return Setting(
        name=setting.name,
        value=setting.value,
        file=setting.file,
        line=setting.line,
        exported=True,
    )
