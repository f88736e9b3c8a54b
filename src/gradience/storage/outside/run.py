"""Run a program and look after its disks: clean, release the reserve, ask it to stop.

The program stays in our process group and keeps our terminal. Signals are not handled but waited
for (`sigtimedwait`), which says who sent them: what the terminal sent, the program has got already.
"""

import contextlib
import errno
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gradience import files
from gradience.errors import StorageError, UsageError
from gradience.storage.guard.records import Cleaner, Need
from gradience.storage.outside.looks import Look, Looker
from gradience.storage.outside.policy import Policy
from gradience.storage.outside.records import Asked, DiskSeen, Outcome
from gradience.storage.outside.reserve import Reserve, sweep
from gradience.units import format_seconds, format_size

PASSED_ON = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCONT,
    signal.SIGALRM,
)
_WAITED_FOR = frozenset((*PASSED_ON, signal.SIGCHLD))
_FROM_KERNEL = 0x80  # SI_KERNEL, sigaction(2): the terminal sent it to the whole group
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126


@dataclass(slots=True)
class _Asking:
    how: str
    free_bytes: int | None
    place: str
    seconds: float
    signalled: bool = False
    ignored: bool = False


@dataclass(slots=True)
class _Child:
    """A program that runs, and what was done for it."""

    pid: int
    policy: Policy
    lookers: Sequence[Looker]
    reserves: Sequence[Reserve]
    clean: Cleaner | None
    say: Callable[[str], None]
    asking: _Asking | None = None
    cleaned_bytes: int = 0
    released_bytes: int = 0
    warned: set[Path] = field(default_factory=set)

    def tend(self) -> None:
        """Do what the last looks ask for."""
        if self.asking is not None:
            self._insist()
            return
        for looker in self.lookers:
            look = looker.latest
            if look is None:
                continue
            if not look.low:
                self._warn(looker, look)
                continue
            if not self._cleaned(looker):
                self._ask(looker, look)
            return

    def _warn(self, looker: Looker, look: Look) -> None:
        below = self.policy.warn_bytes
        below = 2 * looker.stop.bytes if below is None else below
        if look.free_bytes is None or look.free_bytes >= below or looker.place in self.warned:
            return
        self.warned.add(looker.place)
        when = look.told.seconds_to_full
        pace = f", full in {format_seconds(when)} at this pace" if when is not None else ""
        self.say(f"{looker.place}: {format_size(look.free_bytes)} left{pace}.")

    def _cleaned(self, looker: Looker) -> bool:
        """Whether the allowed cleaning made enough room; it runs once."""
        if self.clean is None:
            return False
        clean, self.clean = self.clean, None
        self.say(f"{looker.place} is nearly full: cleaning, as the policy allows.")
        try:
            self.cleaned_bytes += clean(looker.stop.bytes)
            return not looker.look().low
        except (StorageError, OSError) as error:
            self.say(f"Cleaning failed: {error}")
            return False

    def _ask(self, looker: Looker, look: Look) -> None:
        """Release the reserve, so that there is room to save, and ask the program to stop."""
        for each in self.lookers:
            each.asked = True
        self.released_bytes = sum(reserve.release() for reserve in self.reserves)
        how = self.policy.signal.name
        if self.policy.stop_file is not None:
            try:
                files.replace(Path(self.policy.stop_file), b"The disk is nearly full.\n")
                how = self.policy.stop_file
            except StorageError as error:
                self.say(f"The stop file could not be made: {error}")
        if how == self.policy.signal.name:
            self.send(self.policy.signal)
        left = "too little" if look.free_bytes is None else format_size(look.free_bytes)
        self.say(f"{looker.place} is nearly full ({left} left): asked to stop by {how}.")
        self.asking = _Asking(
            how=how,
            free_bytes=look.free_bytes,
            place=str(looker.place),
            seconds=time.monotonic(),
        )

    def _insist(self) -> None:
        asking = self.asking
        assert asking is not None
        periods = (time.monotonic() - asking.seconds) / max(0.01, self.policy.grace_seconds)
        by_file = asking.how != self.policy.signal.name
        if periods >= 1 and by_file and not asking.signalled:
            asking.signalled = True
            self.send(self.policy.signal)
        if periods >= (2 if by_file else 1) and not asking.ignored:
            asking.ignored = True
            self.say("The program was asked to stop and goes on.")

    def send(self, number: int) -> None:
        """Send a signal to the program."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)


def run(
    command: Sequence[str],
    policy: Policy,
    places: Sequence[Path],
    *,
    environ: Mapping[str, str],
    home: Path,
    clean: Cleaner | None = None,
    say: Callable[[str], None],
) -> Outcome:
    """Run a program to its end, and look after the disks of some directories meanwhile.

    Parameters
    ----------
    command : sequence of str
        Program and arguments; found by PATH.
    places : sequence of Path
        Existing directories; one for each disk.
    environ : mapping
        Of the program.
    clean : Cleaner, optional
        The cleaning that the policy allows.
    say : callable
        Is given one line at a time.

    Raises
    ------
    UsageError
        If this system cannot wait for signals.
    """
    if not hasattr(signal, "sigtimedwait"):
        raise UsageError(
            "gradience run waits for signals with sigtimedwait, which this system does not have",
            remedy="Run it on Linux; `gradience cache watch` works here too.",
        )
    for place in places:
        if freed := sweep(place):
            say(f"{format_size(freed)} of a reserve that a killed run left were removed.")
    lookers = [_looker(place, policy, environ, home) for place in places]
    reserves = [_reserve(looker, policy, say) for looker in lookers]
    first = [looker.look().free_bytes for looker in lookers]
    started = time.monotonic()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED_FOR)
    try:
        pid = _start(command, environ, before, say)
        if isinstance(pid, _Failed):
            return Outcome(code=pid.code, seconds=0.0, disks=())
        child = _Child(pid, policy, lookers, reserves, clean, say)
        for looker in lookers:
            looker.start()
        status = _wait(child)
    finally:
        for looker in lookers:
            looker.end()
        for reserve in reserves:
            reserve.release()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    code = os.waitstatus_to_exitcode(status)
    return Outcome(
        code=code if code >= 0 else 128 - code,
        seconds=time.monotonic() - started,
        disks=tuple(map(_seen, lookers, first)),
        asked=_asked(child),
        cleaned_bytes=child.cleaned_bytes,
        released_bytes=child.released_bytes,
    )


@dataclass(frozen=True, slots=True)
class _Failed:
    code: int


def _start(
    command: Sequence[str],
    environ: Mapping[str, str],
    mask: set[int | signal.Signals],
    say: Callable[[str], None],
) -> "int | _Failed":
    """Start it with the signals as we got them; Python ignores two that a program expects."""
    try:
        return os.posix_spawnp(
            command[0],
            list(command),
            dict(environ),
            setsigmask=mask,
            setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
        )
    except OSError as error:
        say(f"{command[0]} cannot be run: {error.strerror}")
        return _Failed(_NOT_FOUND if error.errno == errno.ENOENT else _NOT_EXECUTABLE)


def _wait(child: _Child) -> int:
    """Pass signals on and tend to the disks until the program ends; its wait status."""
    tick = min(0.25, child.policy.interval_seconds)
    while True:
        ended, status = os.waitpid(child.pid, os.WNOHANG)
        if ended:
            return status
        child.tend()
        got = signal.sigtimedwait(_WAITED_FOR, tick)
        if got is not None and got.si_signo in PASSED_ON and got.si_code != _FROM_KERNEL:
            child.send(got.si_signo)


def _looker(place: Path, policy: Policy, environ: Mapping[str, str], home: Path) -> Looker:
    looker = Looker(
        place,
        Need(bytes=0, inodes=policy.stop_files),
        environ=environ,
        home=home,
        every=policy.interval_seconds,
    )
    room = looker.look()
    files_at_most = (room.free_files or 0) // 10 if room.free_files is not None else 0
    looker.stop = Need(
        bytes=policy.stop_at(room.free_bytes), inodes=min(policy.stop_files, files_at_most)
    )
    return looker


def _reserve(looker: Looker, policy: Policy, say: Callable[[str], None]) -> Reserve:
    reserve = Reserve(looker.place)
    wanted = policy.hold(looker.stop.bytes)
    if problem := reserve.hold(wanted):
        say(f"No reserve of {format_size(wanted)} could be held: {problem}")
    looker.forget()
    return reserve


def _seen(looker: Looker, first: int | None) -> DiskSeen:
    with contextlib.suppress(StorageError):
        looker.look()
    last = looker.latest.free_bytes if looker.latest else None
    return DiskSeen(place=str(looker.place), first=first, lowest=looker.lowest_free, last=last)


def _asked(child: _Child) -> Asked | None:
    asking = child.asking
    if asking is None:
        return None
    return Asked(
        how=asking.how,
        free_bytes=asking.free_bytes,
        place=asking.place,
        seconds=time.monotonic() - asking.seconds,
        signalled=asking.signalled,
        ignored=asking.ignored,
    )
