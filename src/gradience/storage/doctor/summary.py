"""Facts to a diagnosis: where each library's bytes go, and what the rules find. Pure."""

from gradience.storage.doctor.facts import Facts, Library, Program
from gradience.storage.doctor.finding_kinds import TROUBLE_OF, VariablesFinding
from gradience.storage.doctor.records import (
    Diagnosis,
    ProgramPlace,
    ProgramSetting,
    ProgramSummary,
    TroubledFinding,
    WhereTo,
)
from gradience.storage.doctor.rules import examine
from gradience.storage.doctor.values import deciding, meant


def summarise(facts: Facts) -> Diagnosis:
    """Facts and the findings that rules make of them."""
    libraries: tuple[Library, ...] = facts.interpreter.libraries if facts.interpreter else ()
    return Diagnosis(
        interpreter=facts.interpreter.executable if facts.interpreter else "",
        python=facts.interpreter.version if facts.interpreter else "",
        libraries={x.name: x.version for x in libraries},
        places=(*_where_to(facts), *_of_program(facts)),
        findings=tuple(
            TroubledFinding(
                trouble=TROUBLE_OF[f.code],
                code=f.code,
                severity=f.severity,
                message=f.message,
                remedy=f.remedy,
                variables=f.variables if isinstance(f, VariablesFinding) else (),
            )
            for f in examine(facts)
        ),
        program=_program(facts.program) if facts.program else None,
        unasked=facts.unasked,
    )


def _where_to(facts: Facts) -> list[WhereTo]:
    found = []
    for use in facts.uses:
        mount = facts.mount_of.get(use.path)
        place = facts.places.get(use.path)
        decided = deciding(use, facts)
        room = next((r for r in facts.rooms if use.path in r.places), None)
        found.append(
            WhereTo(
                library=use.library,
                purpose=use.purpose,
                path=use.path,
                because=decided[0] if decided else "default",
                asked=use.asked,
                mount=str(mount.path) if mount else "",
                fs_type=mount.fs_type if mount else "",
                free_bytes=room.free_bytes if room else None,
                exists=place is not None and place.exists,
            )
        )
    return found


def _of_program(facts: Facts) -> list[WhereTo]:
    """Directories that the program names, where their path can be told."""
    found = []
    for literal in facts.program.literals if facts.program else ():
        path = meant(literal.value, facts)
        place = facts.places.get(path) if path else None
        if path is None or place is None:
            continue
        mount = facts.mount_of.get(path)
        room = next((r for r in facts.rooms if path in r.places), None)
        found.append(
            WhereTo(
                library="the program",
                purpose=literal.keyword,
                path=path,
                because=f"line {literal.line}" if literal.line else literal.call,
                mount=str(mount.path) if mount else "",
                fs_type=mount.fs_type if mount else "",
                free_bytes=room.free_bytes if room else None,
                exists=place.exists,
            )
        )
    return found


def _program(program: Program) -> ProgramSummary:
    return ProgramSummary(
        command=program.words,
        script=str(program.script or ""),
        imports=tuple(f"{i.library} (line {i.line})" for i in program.imports),
        sets=(
            *(ProgramSetting(name=k, value=v, how="prefix") for k, v in program.prefix.items()),
            *(
                ProgramSetting(name=a.name, value=a.value, how=a.how, line=a.line)
                for a in program.assignments
            ),
        ),
        places=tuple(
            ProgramPlace(keyword=p.keyword, value=p.value, call=p.call, line=p.line)
            for p in program.literals
        ),
    )
