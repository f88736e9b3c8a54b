"""Trouble three of our user's list: variables without effect. Pure: facts in, findings out."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from gradience.findings import Finding
from gradience.storage.doctor import finding_kinds as kinds
from gradience.storage.doctor.facts import Facts, Setting, Use
from gradience.storage.doctor.questions import QUESTIONS, TEMPORARY
from gradience.storage.doctor.rules_contents import hub_holds_repos
from gradience.storage.doctor.values import (
    TRUE,
    below,
    deciding,
    expanded,
    export,
    gone,
    is_literal,
    listed,
    meant,
    version_of,
)
from gradience.storage.environment.variables import VARIABLES
from gradience.units import plural

_OLDER_NAMES = (
    ("HUGGINGFACE_HUB_CACHE", "HF_HUB_CACHE"),
    ("HUGGINGFACE_ASSETS_CACHE", "HF_ASSETS_CACHE"),
)
_SWITCHES = frozenset({"HF_HUB_ENABLE_HF_TRANSFER"})
KNOWN = frozenset(VARIABLES) | {
    name for q in QUESTIONS.values() for rule in q.variables.values() for name, _ in rule
}
"""Variables that decide where bytes go: those looked for in profiles."""


def unread(facts: Facts) -> Iterator[Finding]:
    """TRANSFORMERS_CACHE on transformers 5, HF_HUB_ENABLE_HF_TRANSFER on hub 1..."""
    for name, (library, instead) in gone(facts).items():
        value = facts.environ[name]
        if name in _SWITCHES and value.lower() not in TRUE:
            continue
        mend = f"unset {name}"
        # Pointed to another place, what the hub cache in use holds would be out of sight.
        stranding = instead == "HF_HUB_CACHE" and hub_holds_repos(facts)
        if instead and instead not in facts.environ and not stranding:
            new = "1" if name in _SWITCHES else meant(value, facts) or value
            mend += "; " + export(**{instead: new})
        hint = f"; {instead} is the name it reads" if instead else ""
        yield kinds.UNREAD.found(
            f"{name}={value} is set, and {library} does not read it{hint}.", remedy=mend
        )


def values(facts: Facts) -> Iterator[Finding]:
    """Literal, empty and relative values; libraries that are elsewhere than the value says."""
    users: dict[str, list[tuple[Use, str]]] = defaultdict(list)
    for use in facts.uses:
        decided = deciding(use, facts)
        if decided is not None and use.purpose != TEMPORARY:
            users[decided[0]].append((use, decided[1]))
    for name, uses in users.items():
        value = facts.environ[name]
        if not value:
            yield from _empty(name, uses)
        elif is_literal(value):
            yield from _literal(name, value, uses, facts)
        elif not value.startswith("/"):
            yield _relative(name, value, uses, facts)
        else:
            yield from _elsewhere(name, value, uses)


def _empty(name: str, uses: list[tuple[Use, str]]) -> Iterator[Finding]:
    wrong = [use for use, _ in uses if not use.answer.startswith("/")]
    if wrong:
        yield kinds.EMPTY.found(
            f"{name} is set to nothing, so {_where(wrong)}: below the working directory.",
            remedy=f"unset {name}",
        )


def _literal(name: str, value: str, uses: list[tuple[Use, str]], facts: Facts) -> Iterator[Finding]:
    wish = meant(value, facts)
    wrong = [use for use, rest in uses if wish is None or use.path != below(wish, rest)]
    if not wrong:
        return
    right = [use.library for use, _ in uses if use not in wrong]
    also = f" (only {listed(right)} expands it)" if right else ""
    unknown = "" if wish else ", and a variable in it is not set"
    yield kinds.LITERAL.found(
        f"{name}={value} arrived unexpanded{unknown}: {_where(wrong)}{also}.",
        remedy=export(**{name: wish})
        if wish
        else f"unset {name}  # or export it with the variable's value",
    )


def _relative(name: str, value: str, uses: list[tuple[Use, str]], facts: Facts) -> Finding:
    return kinds.RELATIVE.found(
        f"{name}={value} is relative to the working directory: here, "
        f"{_where([use for use, _ in uses])}.",
        remedy=export(**{name: below(str(facts.cwd), value)}),
    )


def _elsewhere(name: str, value: str, uses: list[tuple[Use, str]]) -> Iterator[Finding]:
    wrong = [(use, rest) for use, rest in uses if use.path != below(value, rest)]
    if wrong:
        rest = wrong[0][1]
        yield kinds.ELSEWHERE.found(
            f"{name}={value} says {below(value, rest)}, but {_where([u for u, _ in wrong])}.",
            remedy=f"grep -rn {name} $(python -c 'import site; print(*site.getsitepackages())')"
            " --include=*.pth --include=sitecustomize.py  # what sets another path",
        )


def _where(uses: list[Use]) -> str:
    """`datasets keeps datasets as Arrow in /x/y`, one for each library."""
    first = {use.library: use for use in reversed(uses)}
    ordered = [first[name] for name in dict.fromkeys(use.library for use in uses)]
    return listed((f"{u.library} keeps its {u.purpose} in {u.path}" for u in ordered), 3)


def older_names(facts: Facts) -> Iterator[Finding]:
    """HUGGINGFACE_HUB_CACHE beside HF_HUB_CACHE."""
    for old, new in _OLDER_NAMES:
        values_ = (facts.environ.get(old), facts.environ.get(new))
        if None not in values_ and values_[0] != values_[1]:
            yield kinds.OVERRIDDEN.found(
                f"{old}={values_[0]} loses against {new}={values_[1]}.", remedy=f"unset {old}"
            )


def profiles(facts: Facts) -> Iterator[Finding]:
    """Lines in shell profiles that this process does not have: one shell mends them all."""
    last: dict[str, Setting] = {s.name: s for s in facts.settings if s.name in KNOWN}
    removed = set(facts.program.removed) if facts.program else set()
    lacking: dict[str, str] = {}
    lines: dict[str, list[str]] = defaultdict(list)
    for name, setting in last.items():
        value = expanded(setting.value, facts.environ, facts.home)
        if name not in facts.environ and name not in removed and value:
            lacking[name] = value
            why = "" if setting.exported else ", without `export`"
            lines[setting.file].append(f"{name} (line {setting.line}{why})")
    if lacking:
        be = "is" if len(lacking) == 1 else "are"
        where = "; ".join(f"in {file}, {', '.join(told)}" for file, told in lines.items())
        yield kinds.found_together(
            kinds.IN_PROFILE,
            f"{plural(len(lacking), 'variable')} of shell profiles {be} not in this process, which "
            "was started before those lines were written, or by something that reads no profile: "
            f"{where}.",
            variables=[
                kinds.SetVariable(
                    name=name, value=value, file=last[name].file, line=last[name].line
                )
                for name, value in lacking.items()
            ],
            remedy=export(**lacking),
        )


def xet_disabled(facts: Facts) -> Iterator[Finding]:
    """HF_HUB_DISABLE_XET where it costs more than it gives."""
    hub = facts.interpreter.installed("huggingface_hub") if facts.interpreter else None
    value = facts.environ.get("HF_HUB_DISABLE_XET", "")
    if value.lower() in TRUE and version_of(hub) >= (0, 30):
        store = version_of(hub) >= (1, 32)
        also = " and equal files of two repositories are stored twice" if store else ""
        yield kinds.XET_DISABLED.found(
            f"HF_HUB_DISABLE_XET={value}: with huggingface_hub {hub} a file above 50 GB is refused"
            f"{also}.",
            remedy="unset HF_HUB_DISABLE_XET",
        )


def login_lost(facts: Facts) -> Iterator[Finding]:
    """A token at the usual place that the libraries no longer look at."""
    if facts.environ.get("HF_TOKEN") or any(t.in_use for t in facts.tokens):
        return
    here = next((u for u in facts.uses if u.purpose == "login"), None)
    usual = facts.home / ".cache" / "huggingface" / "token"
    if here is not None and any(t.path == usual for t in facts.tokens) and Path(here.path) != usual:
        yield kinds.LOGIN_LOST.found(
            f"the login in {usual} is not found: {here.library} looks in {here.path}.",
            remedy=export(HF_TOKEN_PATH=str(usual)),
        )


def libraries(facts: Facts) -> Iterator[Finding]:
    """Libraries that could not say."""
    if facts.interpreter is None:
        return
    for library in facts.interpreter.libraries:
        if library.problem:
            python = facts.interpreter.executable
            name = QUESTIONS[library.name].distribution or library.name
            wanted = f"{name}=={library.version}" if library.version else name
            yield kinds.LIBRARY_BROKEN.found(
                f"{' '.join(filter(None, [library.name, library.version]))} could not be asked: "
                f"{library.problem}",
                remedy=f"{python} -m pip install --force-reinstall --no-deps {wanted}",
            )
