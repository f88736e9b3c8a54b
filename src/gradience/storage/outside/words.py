"""The closing summary: pure text."""

import signal

from gradience.storage.outside.records import Asked, DiskSeen, Outcome
from gradience.units import format_seconds, format_size


def summary(outcome: Outcome) -> list[str]:
    """What is said on standard error when the program has ended."""
    lines = [f"{_ended(outcome.code)} after {format_seconds(outcome.seconds)}."]
    lines += [_disk(disk) for disk in outcome.disks]
    if outcome.cleaned_bytes:
        lines.append(f"Cleaning freed {format_size(outcome.cleaned_bytes)}.")
    if outcome.asked is not None:
        lines += _asked(outcome.asked, outcome.released_bytes)
    return lines


def _ended(code: int) -> str:
    if code > 128 and (code - 128) in {int(s) for s in signal.Signals}:
        return f"The program ended by {signal.Signals(code - 128).name} (exit code {code})"
    return f"The program ended with exit code {code}"


def _disk(disk: DiskSeen) -> str:
    if disk.first is None or disk.lowest is None or disk.last is None:
        return f"{disk.place}: what can be written there is not known."
    return (
        f"{disk.place}: {format_size(max(0, disk.first - disk.lowest))} used at the peak, "
        f"{format_size(disk.lowest)} left at the lowest, {format_size(disk.last)} now."
    )


def _asked(asked: Asked, released: int) -> list[str]:
    left = "too little" if asked.free_bytes is None else format_size(asked.free_bytes)
    reserve = f", and the reserve of {format_size(released)} was released" if released else ""
    lines = [
        f"It was asked to stop by {asked.how} with {left} left in {asked.place}{reserve}; it ended "
        f"{format_seconds(asked.seconds)} later."
    ]
    if asked.signalled:
        lines.append("It did not heed the stop file in time, so the signal was sent too.")
    if asked.ignored:
        lines.append(
            "It ignored the request: what it wrote last may not be whole. Let it stop at "
            f"{asked.how if asked.how.startswith('SIG') else 'the stop file'}, or name another "
            "signal or a stop_file in the policy."
        )
    lines.append(
        f"Next: free space below {asked.place} (`gradience cache du`, `gradience checkpoints prune "
        f"{asked.place}`), then run the same command again."
    )
    return lines
