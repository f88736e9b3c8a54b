"""What a program does to its own places: variables that come too late, directories in the code."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from gradience.findings import Finding, FindingKind
from gradience.storage.doctor import finding_kinds as kinds
from gradience.storage.doctor.facts import Assignment, Facts, Import, Program
from gradience.storage.doctor.questions import QUESTIONS
from gradience.storage.doctor.values import expanded, export, is_literal, listed, meant, quoted
from gradience.storage.environment.variables import VARIABLES

_HUB = frozenset({"huggingface_hub"})
_BASE = _HUB | {"transformers"}
PULLS_IN = {
    "huggingface_hub": _HUB,
    "transformers": _BASE,
    "datasets": _HUB | {"datasets"},
    "diffusers": _HUB | {"diffusers"},
    "accelerate": _HUB | {"accelerate"},
    "peft": _BASE | {"accelerate", "peft"},
    "trl": _BASE | {"accelerate", "datasets"},
    "evaluate": _HUB | {"datasets", "evaluate"},
    "sentence_transformers": _BASE,
    "setfit": _BASE | {"datasets", "evaluate"},
    "unsloth": _BASE | {"datasets", "accelerate"},
    "axolotl": _BASE | {"datasets", "accelerate"},
    "optimum": _BASE,
    "timm": _HUB,
    "vllm": _BASE,
    "spacy_huggingface_hub": _HUB,
    "gradio": _HUB,
    "lm_eval": _BASE | {"datasets", "evaluate"},
}
"""What importing a library imports with it, as far as their paths go."""


def frozen_by(program: Program, name: str, order: int) -> tuple[str, int, tuple[str, ...]] | None:
    """The import that froze a variable before a point of the program, its line, and for whom."""
    variable = VARIABLES.get(name)
    if variable is None or variable.read != "import":
        return None
    for imported in program.imports:
        readers = PULLS_IN.get(imported.library, frozenset()) & set(variable.readers)
        if readers and imported.order < order:
            return imported.library, imported.line, tuple(sorted(readers))
    return None


def takes_effect(program: Program, assignment: Assignment) -> bool:
    """An assignment that comes in time for every library that reads it."""
    return (
        assignment.how != "os.putenv"
        and frozen_by(program, assignment.name, assignment.order) is None
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Vain:
    """A variable that a line of a program sets without the effect that was meant."""

    kind: FindingKind
    name: str
    value: str | None
    line: int
    why: str


def after_import(facts: Facts) -> Iterator[Finding]:
    """`os.environ[...] = ...` below the import that froze it, and what os.putenv sets.

    One finding for all that one command mends: with a part of them it would fail again.
    """
    program = facts.program
    if program is None:
        return
    vain = list(_in_vain(facts, program))
    groups: dict[tuple[str, bool], list[_Vain]] = defaultdict(list)
    for each in vain:
        groups[each.kind.code, each.value is None].append(each)
    for (_, computed), group in groups.items():
        values = {v.name: v.value for v in vain if (v.value is None) is computed}
        yield kinds.found_together(
            group[0].kind,
            f"{program.script}, {_told(group)}.",
            variables=[
                kinds.SetVariable(name=v.name, value=v.value, file=str(program.script), line=v.line)
                for v in group
            ],
            remedy=_in_front(program, values, facts),
        )


def _told(group: list[_Vain]) -> str:
    """What each line sets, and why in vain."""
    lines: dict[tuple[int, str], list[str]] = defaultdict(list)
    for each in group:
        lines[each.line, each.why].append(each.name)
    return "; ".join(f"line {n} sets {', '.join(names)} {why}" for (n, why), names in lines.items())


def _in_vain(facts: Facts, program: Program) -> Iterator[_Vain]:
    for assignment in program.assignments:
        if assignment.how == "load_dotenv":
            for setting in program.dotenv:
                if setting.name not in facts.environ:
                    yield from _late(facts, program, assignment, setting.name, setting.value)
        elif assignment.how == "os.putenv" and assignment.name in VARIABLES:
            yield _Vain(
                kind=kinds.PUTENV,
                name=assignment.name,
                value=assignment.value,
                line=assignment.line,
                why="by os.putenv, for child processes only",
            )
        else:
            yield from _late(facts, program, assignment, assignment.name, assignment.value)


def _late(
    facts: Facts, program: Program, assignment: Assignment, name: str, value: str | None
) -> Iterator[_Vain]:
    frozen = frozen_by(program, name, assignment.order)
    if frozen is None or (value is not None and facts.environ.get(name) == value):
        return
    library, line, readers = frozen
    moving = ", and hf_xet, which reads it later, takes the new one: bytes over two disks"
    splits = moving if "hf_xet" in VARIABLES[name].readers else ""
    yield _Vain(
        kind=kinds.AFTER_IMPORT,
        name=name,
        value=value,
        line=assignment.line,
        why=f"after line {line} imported {library}: {listed(readers)} took the old path "
        f"then{splits}",
    )


def _in_front(program: Program, values: dict[str, str | None], facts: Facts) -> str:
    """The command with the variables in front of it; or where to move the line."""
    known = {k: expanded(v, facts.environ, facts.home) for k, v in values.items() if v is not None}
    if len(known) < len(values):
        names = listed(values)
        return f"# move the line that sets {names} above the first import of {program.script}"
    return export(**known).removeprefix("export ") + " " + _again(program)


def _again(program: Program) -> str:
    words = program.words
    if program.script and len(words) == 1:
        return f"python {quoted(*words)}"
    front = [f"{k}={quoted(v)}" for k, v in program.prefix.items()]
    return " ".join([*front, quoted(*words[len(front) :])])


def places(facts: Facts) -> Iterator[Finding]:
    """Directories written in the program."""
    program = facts.program
    for literal in program.literals if program else ():
        where = f"{program.script if program else ''}, line {literal.line}"
        if "$" in literal.value and is_literal(literal.value):
            yield kinds.LITERAL.found(
                f"{where}: {literal.keyword}={literal.value!r} in {literal.call}() is not "
                "expanded: a directory of that name is made below the working directory.",
                remedy=f"# write os.path.expandvars({literal.value!r}) in line {literal.line}",
            )
        elif literal.keyword in {"cache_dir", "cache_folder"}:
            path = meant(literal.value, facts) or literal.value
            if any(use.path == path for use in facts.uses):
                continue
            yield kinds.CACHE_IN_PROGRAM.found(
                f"{where}: {literal.call} has {literal.keyword}={literal.value!r}, a cache that no "
                "other program shares.",
                remedy=f"# leave {literal.keyword} out of line {literal.line}: HF_HOME then "
                "decides for every program",
            )


def missing(facts: Facts) -> Iterator[Finding]:
    """Libraries that the program imports and its interpreter does not have."""
    if facts.program is None or facts.interpreter is None:
        return
    lacking: list[Import] = []
    for imported in facts.program.imports:
        name = imported.library
        question = QUESTIONS.get(name)
        if question is None or facts.interpreter.has(question.distribution):
            continue
        if any(library.name == name for library in facts.interpreter.libraries):
            continue  # there, and damaged: told already
        lacking.append(imported)
    if lacking:
        python = facts.interpreter.executable
        told = ", ".join(f"line {each.line} imports {each.library}" for each in lacking)
        packages = [QUESTIONS[each.library].distribution for each in lacking]
        yield kinds.LIBRARY_MISSING.found(
            f"{facts.program.script}: {told}, which {python} does not have: its places are not "
            "known.",
            remedy=f"{quoted(python)} -m pip install {quoted(*packages)}"
            "  # or name the right interpreter with --python",
        )


def not_read(facts: Facts) -> Iterator[Finding]:
    """Why a program could not be read."""
    for note in facts.program.notes if facts.program else ():
        yield kinds.NO_PROGRAM.found(note, remedy="gradience doctor -- python path/to/script.py")
