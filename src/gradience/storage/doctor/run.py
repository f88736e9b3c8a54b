"""Look at the machine and say what is wrong: gather the facts, apply the rules."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from gradience.storage.doctor.facts import Unfinished
from gradience.storage.doctor.gather import Machine, gather, may_not_lock, none_unfinished
from gradience.storage.doctor.probe import Progress
from gradience.storage.doctor.records import Diagnosis
from gradience.storage.doctor.summary import summarise
from gradience.system.records import Mount


def diagnose(
    machine: Machine,
    *,
    command: Sequence[str] = (),
    projects: Sequence[Path] = (),
    named_python: bool = False,
    only: Sequence[str] = (),
    use_cache: bool = True,
    progress: Progress | None = None,
    needs_lock_test: Callable[[Mount], bool] = may_not_lock,
    find_unfinished: Callable[[Iterable[str]], Iterable[Unfinished]] = none_unfinished,
) -> Diagnosis:
    """Look at the machine, and say where bytes go and what is wrong.

    Parameters are those of `gather`.

    Raises
    ------
    UsageError
        If the interpreter cannot be run.
    """
    facts = gather(
        machine,
        command=command,
        projects=projects,
        named_python=named_python,
        only=only,
        use_cache=use_cache,
        progress=progress,
        needs_lock_test=needs_lock_test,
        find_unfinished=find_unfinished,
    )
    return summarise(facts)
