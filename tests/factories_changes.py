"""Plans to carry out, and journals that die."""

import os
import signal
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from gradience.files.below import Below
from gradience.storage.change import fingerprint
from gradience.storage.change.apply import apply
from gradience.storage.change.choose import Rule
from gradience.storage.change.clean import plan_clean
from gradience.storage.change.copies import groups
from gradience.storage.change.dedupe import plan_dedupe
from gradience.storage.change.journal import DiskJournal
from gradience.storage.change.needs import needs, revisions_of
from gradience.storage.change.protect import Facts
from gradience.storage.change.records import Action, Item, Plan, Receipt, text_of
from gradience.storage.change.remote import Fate
from gradience.storage.change.site import Site
from gradience.storage.inventory.places import Place
from gradience.storage.inventory.take import survey
from gradience.system.holders import Held, Holder, Holders


def plan_of(
    root: Path,
    *units: Sequence[str] | str,
    verb: str = "delete",
    guard: str = "",
    change: str = "test",
    one_group: bool = False,
) -> Plan:
    """Deletions below a root; each unit is a name, or several that go together."""
    with Below(str(root)) as below:
        actions = tuple(
            Action(
                verb=verb,
                root=text_of(str(root)),
                path=text_of(name),
                fingerprint=fingerprint.take(below, name),
                item=number,
                unit=number,
                group=0 if one_group else number,
                guard=guard,
            )
            for number, unit in enumerate(units)
            for name in ([unit] if isinstance(unit, str) else unit)
        )
    names = [text_of(str(unit)) for unit in units]
    items = tuple(Item(name=n, kind="test", what="thing", reasons=("a test",)) for n in names)
    return Plan(id=change, title="clean", made=0.0, items=items, actions=actions)


def nobody() -> Holders:
    """No process has anything open."""
    return Holders()


def holding(*paths: Path) -> Holders:
    """A process that has these files open."""
    found = Holders()
    holder = Holder(pid=1, name="python", how="open")
    for path in paths:
        status = path.stat()
        found.add([Held(device=status.st_dev, inode=status.st_ino, name=path.name, holder=holder)])
    return found


def carry_out(plan: Plan, **options: object) -> Receipt:
    return apply(plan, **{"holders": nobody, **options})  # type: ignore[arg-type]


def states(receipt: Receipt) -> list[str]:
    return [outcome.state for outcome in receipt.outcomes]


class DyingJournal:
    """A journal whose process is killed at its nth step, as by `kill -9`."""

    def __init__(self, steps: int) -> None:
        self.left = steps
        self.inner = DiskJournal()

    def _step(self) -> None:
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1

    def begin(self, site: Site, plan: Plan) -> None:
        self._step()
        self.inner.begin(site, plan)
        self._step()

    def step(self, index: int, state: bytes) -> None:
        self._step()
        self.inner.step(index, state)
        self._step()

    def end(self, *, keep: bool) -> None:
        self._step()
        self.inner.end(keep=keep)
        self._step()


def in_a_child(act: Callable[[], object]) -> bool:
    """Do it in a child; whether that was killed, as by `kill -9`, before it came to its end."""
    child = os.fork()
    if child == 0:
        try:
            act()
        except BaseException:  # noqa: BLE001 - a test that forked must not go on as two
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert killed or status == 0
    return killed


def dies(plan: Plan, steps: int) -> bool:
    """Carry out a plan in a child that is killed at a step; whether it came so far."""
    journal = lambda: DyingJournal(steps)  # noqa: E731
    return in_a_child(lambda: carry_out(plan, new_journal=journal))


def names_below(root: Path) -> set[str]:
    """Every name below a directory, but for Gradience's own."""
    found = {str(path.relative_to(root)) for path in root.rglob("*")}
    return {name for name in found if ".gradience" not in name.split("/")}


def top(root: Path) -> list[str]:
    """What lies in a directory, Gradience's own too."""
    return sorted(path.name for path in root.iterdir())


def clean_plan(
    hub: Path,
    *,
    verb: str = "delete",
    holders: Holders | None = None,
    projects: Sequence[Path] = (),
    min_age: float = 0.0,
    force: bool = False,
    fate: Fate = "served",
    idle_days: float | None = None,
    **rule: Any,
) -> Plan:
    """The plan of a cleaning of one hub cache."""
    found = survey(
        environ={"HF_HUB_CACHE": str(hub)},
        home=hub.parent,
        now=datetime.now(UTC),
        kinds=["hub"],
    )
    idle = timedelta(days=idle_days) if idle_days is not None else None
    needed, _ = needs(projects, revisions_of(found.inventory))
    space = os.statvfs(hub)
    return plan_clean(
        found,
        [Rule(idle=idle, **rule)],
        Facts(
            holders=holders if holders is not None else nobody(),
            needed=needed,
            min_age=min_age,
            force=force,
        ),
        change=f"test-{os.urandom(2).hex()}",
        free={hub.stat().st_dev: space.f_bavail * space.f_frsize},
        ask=lambda revisions: dict.fromkeys(revisions, fate),
        verb=verb,
    )


def dedupe_plan(
    *hubs: Path,
    projects: tuple[Path, ...] = (),
    ollama: tuple[Path, ...] = (),
    holders: Holders | None = None,
) -> Plan:
    """The plan that lets equal files of these caches share their bytes."""
    found = survey(
        environ={"HF_HUB_CACHE": str(hubs[0])},
        home=hubs[0].parent,
        now=datetime.now(UTC),
        kinds=["hub", "project"],
        projects=projects,
        also=[Place(kind="hub", path=path, chosen_by="--at") for path in hubs[1:]],
    )
    return plan_dedupe(groups(found, ollama), change="test", now=0.0, holders=holders or nobody())
