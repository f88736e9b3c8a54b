"""A command line as a shell would take it: prefix variables, interpreter, script, arguments. Pure.

`HF_HOME=/x python -u train.py --output_dir out` sets a variable for that program alone, and so does
`env HF_HOME=/x ...`; launchers (torchrun, accelerate, uv, srun) carry the script among their own
options, so the first word that ends in `.py` is the script.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_PYTHON = re.compile(r"(?:.*/)?(?:python|pypy)[\d.]*(?:\.exe)?")
_WITH_VALUE = frozenset({"-W", "-X", "--check-hash-based-pycs"})


@dataclass(slots=True, kw_only=True)
class Command:
    """The parts of a command line.

    Attributes
    ----------
    prefix : dict
        Variables set for this command.
    removed : list of str
        Variables taken away by `env -u`.
    emptied : bool
        `env -i`: the program starts with nothing but the prefix.
    program : str
        The first word after the prefix: an interpreter, a launcher, or the script itself.
    flags : list of str
        Options of the interpreter.
    script, module, code : str
        What Python runs; at most one is not empty.
    arguments : list of str
        What the script is given.
    """

    prefix: dict[str, str] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    emptied: bool = False
    program: str = ""
    flags: list[str] = field(default_factory=list)
    script: str = ""
    module: str = ""
    code: str = ""
    arguments: list[str] = field(default_factory=list)

    @property
    def is_python(self) -> bool:
        """The program is a Python interpreter by its name."""
        return _PYTHON.fullmatch(self.program) is not None


def parse(words: Sequence[str]) -> Command:
    """Take a command line apart.

    Examples
    --------
    >>> c = parse(["HF_HOME=/x", "python3", "-u", "train.py", "--output_dir", "out"])
    >>> c.prefix, c.program, c.flags, c.script, c.arguments
    ({'HF_HOME': '/x'}, 'python3', ['-u'], 'train.py', ['--output_dir', 'out'])
    >>> parse(["train.py"]).script
    'train.py'
    >>> c = parse(["env", "-u", "HF_HOME", "torchrun", "--nproc-per-node", "2", "a.py", "-x"])
    >>> c.removed, c.program, c.script, c.arguments
    (['HF_HOME'], 'torchrun', 'a.py', ['-x'])
    """
    command = Command()
    rest = _assignments(list(words), command)
    if rest and rest[0].rsplit("/", 1)[-1] == "env":
        rest = _env(rest[1:], command)
    if not rest:
        return command
    command.program = rest[0]
    if command.is_python:
        _interpreter(rest[1:], command)
    else:
        _launcher(rest, command)
    return command


def _assignments(words: list[str], command: Command) -> list[str]:
    while words and (match := _ASSIGNMENT.fullmatch(words[0])):
        command.prefix[match[1]] = match[2]
        words = words[1:]
    return words


def _env(words: list[str], command: Command) -> list[str]:
    while words and words[0].startswith("-"):
        option, words = words[0], words[1:]
        if option in {"-i", "-", "--ignore-environment"}:
            command.emptied = True
        elif option in {"-u", "--unset"} and words:
            command.removed.append(words[0])
            words = words[1:]
        elif option.startswith("--unset="):
            command.removed.append(option.removeprefix("--unset="))
    return _assignments(words, command)


def _interpreter(words: list[str], command: Command) -> None:
    """Options of Python, then a file, `-m module` or `-c code`."""
    while words and words[0].startswith("-") and words[0] != "-":
        option, words = words[0], words[1:]
        if option in {"-m", "-c"} and words:
            if option == "-c":
                command.code = words[0]
                command.arguments = words[1:]
            elif any(word.endswith(".py") for word in words[1:]):
                _launcher(words, command)  # python -m torch.distributed.run ... train.py
            else:
                command.module, command.arguments = words[0], words[1:]
            return
        command.flags.append(option)
        if option in _WITH_VALUE and words:
            command.flags.append(words[0])
            words = words[1:]
    if words:
        command.script, command.arguments = words[0], words[1:]


def _launcher(words: list[str], command: Command) -> None:
    """The first word that is a Python file, wherever it stands."""
    for index, word in enumerate(words):
        if word.endswith(".py"):
            command.script, command.arguments = word, words[index + 1 :]
            return
        if index and (match := _ASSIGNMENT.fullmatch(word)) and not word.startswith("-"):
            command.prefix.setdefault(match[1], match[2])
    command.arguments = words[1:]
