"""The doctor's answer, as it is shown and as it is written for others."""

import msgspec

from gradience.findings import Finding
from gradience.storage.doctor.finding_kinds import SetVariable

SCHEMA = "gradience.doctor/v1"


class WhereTo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where one library's bytes go.

    Attributes
    ----------
    library, purpose, path : str
    because : str
        The variable that decides, or `default`.
    asked : bool
        The library itself said so.
    mount, fs_type : str
        The file system that holds it; empty where that could not be told.
    free_bytes : int or None
    exists : bool
    """

    library: str
    purpose: str
    path: str
    because: str
    asked: bool = True
    mount: str = ""
    fs_type: str = ""
    free_bytes: int | None = None
    exists: bool = False


class ProgramPlace(msgspec.Struct, frozen=True, kw_only=True):
    """A directory that the program itself names."""

    keyword: str
    value: str
    call: str
    line: int


class ProgramSetting(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A variable that the program or its command line sets."""

    name: str
    how: str
    value: str | None = None
    line: int | None = None


class ProgramSummary(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was read of the program."""

    command: tuple[str, ...]
    script: str = ""
    imports: tuple[str, ...] = ()
    sets: tuple[ProgramSetting, ...] = ()
    places: tuple[ProgramPlace, ...] = ()


class TroubledFinding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A finding under the trouble that it causes.

    Attributes
    ----------
    trouble, code, severity, message, remedy : str
    variables : tuple of SetVariable
        Those that it is about, where one command mends several.
    """

    trouble: str
    code: str
    severity: str
    message: str
    remedy: str
    variables: tuple[SetVariable, ...] = ()


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All that `gradience doctor` says.

    Attributes
    ----------
    interpreter, python : str
        The interpreter that was asked, and its version.
    libraries : mapping of str to str
        Installed ones that were asked, with version.
    places : tuple of WhereTo
    findings : tuple of TroubledFinding
        The gravest first.
    program : ProgramSummary or None
    unasked : tuple of str
        What could not be found out, and why.
    """

    interpreter: str
    python: str
    libraries: dict[str, str]
    places: tuple[WhereTo, ...]
    findings: tuple[TroubledFinding, ...]
    program: ProgramSummary | None = None
    unasked: tuple[str, ...] = ()

    def plain_findings(self) -> tuple[Finding, ...]:
        """The findings without their troubles, for `--fail-on`."""
        return tuple(
            msgspec.convert(
                {k: v for k, v in msgspec.to_builtins(f).items() if k != "trouble"}, Finding
            )
            for f in self.findings
        )
