"""What the norms commands show: records to a page. Pure."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite

from gradience.audit.base.base_norm import BaseNorm
from gradience.audit.base.norms_file import NormsFile, believable, in_full, named
from gradience.audit.norms.records import (
    BaseMatch,
    Candidate,
    Kept,
    NormsList,
    Verification,
    WeightCheck,
)
from gradience.page import Page, Table, Text, number, percent
from gradience.units import format_size, plural

_FEW = 20
_FINGERPRINT = len("blake3:") + 12


def listed(found: NormsList) -> Page:
    """The files of norms in a directory."""
    if not found.entries and not found.unreadable:
        return (
            Text(text=f"No norms are kept in {found.directory}."),
            Text(
                text="An audit with --base-model keeps them, and so does: "
                "gradience norms measure MODEL",
                tone="dim",
            ),
        )
    table = Table(
        title=f"Norms of base models in {found.directory}",
        head=("model", "revision", "weights", "width", "size", "written", "fingerprint"),
        rows=tuple(
            (
                e.model if e.usable else f"{e.model} (by an older method)",
                (e.revision or "-")[:12],
                f"{e.weights}"
                + (f" (+{e.unmeasurable} without)" if e.unmeasurable else "")
                + (f" ({e.unchecked} unchecked)" if e.unchecked else ""),
                number(e.width, 2),
                format_size(e.bytes),
                e.written_at[:10],
                e.fingerprint[:_FINGERPRINT],
            )
            for e in found.entries
        ),
        left=frozenset({0, 1, 6}),
        spare=("fingerprint", "size", "written"),
        note="width: of the widest interval, upper / lower - 1. "
        "`gradience norms rm MODEL` removes one.",
    )
    odd = (Text(text=f"{u.name}: {u.message}", tone="warn") for u in found.unreadable)
    return (table, *odd)


def removals(found: NormsList, names: Sequence[str]) -> Page:
    """The files of a directory that are about to be removed."""
    by_name = {entry.file: entry for entry in found.entries}
    rows = []
    for name in names:
        entry = by_name.get(name)
        if entry is None:
            rows.append((name, "-", "-", "-", "not readable"))
            continue
        how = "brought again" if entry.unchecked else "measured again"
        rows.append((name, entry.model, str(entry.weights), format_size(entry.bytes), how))
    return (
        Table(
            title=f"To be removed from {found.directory}",
            head=("file", "model", "weights", "size", "had anew"),
            rows=tuple(rows),
            left=frozenset({0, 1, 4}),
            spare=("size",),
        ),
    )


def shown(
    content: NormsFile, *, source: str, every: bool, unchecked: Mapping[str, BaseNorm]
) -> Page:
    """Every norm of one base model, and which of them no audit should, or would, rely on.

    Parameters
    ----------
    content : NormsFile
    source : str
        The file.
    every : bool
        Whether all weights are listed.
    unchecked : mapping of str to BaseNorm
        Those that stand on the word of a file, and are not known better under another name.
    """
    norms, doubts = believable(content.norms)
    order = sorted(norms.items(), key=lambda item: -item[1].lower)
    rows = tuple(
        (
            key,
            f"{norm.shape[0]} x {norm.shape[1]}",
            norm.dtype,
            number(norm.lower, 6),
            number(norm.upper, 6),
            number(norm.reached if isfinite(norm.reached) else None, 2),
            number(norm.frobenius, 6),
            number((norm.frobenius / norm.upper) ** 2 if norm.upper else None),
        )
        for key, norm in (order if every else order[:_FEW])
    )
    more = len(order) - len(rows)
    told = Counter(norm.told_by for norm in unchecked.values())
    on_its_word = [
        Text(
            text=f"unchecked: {count} are told by {source}; check them: gradience norms import "
            f"{named(content.model, content.revision)} --base-model MODEL",
            tone="warn",
        )
        for source, count in told.items()
    ]
    better_known = sum(bool(norm.told_by) for norm in norms.values()) - len(unchecked)
    if better_known:
        text = (
            f"{better_known} were told by a file; this content was measured or checked under "
            "another name, and an audit takes those norms"
        )
        on_its_word.append(Text(text=text, tone="dim"))
    wrong = [Text(text=f"not believed: {doubt}", tone="bad") for doubt in doubts]
    lost = [
        Text(text=f"no norm: {reason}", tone="warn") for reason in content.unmeasurable.values()
    ]
    return (
        Text(text=named(content.model, content.revision), tone="title"),
        Text(text=f"{source}; {content.fingerprint}", tone="dim"),
        Text(text=f"computed by {_how(content)}", tone="dim"),
        *wrong,
        *on_its_word,
        *lost,
        Table(
            title=f"{len(order)} weights, the largest norm first",
            head=("weight", "shape", "type", "lower", "upper", "width", "Frobenius", "stable rank"),
            rows=rows,
            left=frozenset({0, 2}),
            spare=("stable rank", "type", "Frobenius"),
            note=f"{more} more: --all shows them." if more > 0 else "",
        ),
    )


def _how(content: NormsFile) -> str:
    libraries = ", ".join(f"{name} {version}" for name, version in content.versions.items())
    return f"{content.method} with {libraries}" if libraries else content.method


def verified(found: Verification) -> Page:
    """What became of a check."""
    base = named(found.base_model, found.base_revision)
    return (
        Text(text=f"{found.source} beside {base}", tone="title"),
        Text(
            text="fingerprint: the same files"
            if found.same_base
            else f"fingerprint: other files; the norms are of {found.fingerprint}, "
            f"this is {found.base_fingerprint}",
            tone="good" if found.same_base else "warn",
        ),
        Table(
            title=f"{len(found.checked)} of {found.weights} weights measured again, "
            f"from other starts (--seed {found.seed})",
            head=("weight", "told", "seen", "outcome", "upper bound"),
            rows=tuple(_check_row(check) for check in found.checked),
            left=frozenset({0, 3, 4}),
        ),
        *_verdict(found),
    )


def _check_row(check: WeightCheck) -> tuple[str, ...]:
    return (
        check.key,
        _interval(check.told),
        _interval(check.seen) if check.seen else "-",
        check.outcome if check.outcome == "agrees" else f"{check.outcome}: {check.reason}",
        {True: "proved", False: "not proved", None: "-"}[check.proved],
    )


def _interval(three: tuple[float, float, float]) -> str:
    return f"{number(three[0], 6)} to {number(three[1], 6)}"


def _verdict(found: Verification) -> Iterator[Text]:
    wrong = [check for check in found.checked if check.outcome != "agrees"]
    if not found.checked:
        yield Text(text="NOTHING CHECKED: the file holds no norms", tone="bad")
    elif wrong:
        yield Text(text=f"WRONG: {len(wrong)} of {len(found.checked)} do not agree", tone="bad")
    elif not found.numbers_agree:
        yield Text(text="NOT PROVED: an upper bound could not be proved", tone="bad")
    elif found.same_base:
        yield Text(text="VERIFIED: every number that was checked is right", tone="good")
    else:
        yield Text(text="RIGHT NUMBERS, OTHER FILES: a copy of the same weights?", tone="warn")
        yield Text(
            text=f"  gradience norms import {found.source} --base-model "
            f"{in_full(found.base_model, found.base_revision)}",
            tone="dim",
        )


def measured(kept: Kept, *, model: str) -> Page:
    """What is kept of a base model whose weights were measured."""
    lines = [
        Text(text=f"{kept.weights} weights of {model} have norms in {kept.path}"),
        Text(text=f"{format_size(kept.bytes_read)} were read for it"),
    ]
    if kept.replaced:
        right = f"{kept.replaced - len(kept.told_wrong)} of {kept.replaced} had been told right"
        weights = plural(kept.replaced, "weight")
        text = f"what a file had told of {weights} is replaced by what was measured; {right}"
        lines.append(Text(text=text, tone="good"))
    if kept.told_wrong:
        key, why = next(iter(kept.told_wrong.items()))
        others = len(kept.told_wrong) - 1
        text = f"told wrong: {key} ({why})" + (f", and {others} more" if others else "")
        lines.append(Text(text=text, tone="warn"))
    if kept.unchecked:
        lines.append(
            Text(
                text=f"{kept.unchecked} of {kept.weights} stand on the word of their file, "
                "unchecked: gradience norms import checks them, with --base-model",
                tone="warn",
            )
        )
    if kept.unmeasurable:
        lines.append(
            Text(text=f"{kept.unmeasurable} have none: gradience norms show says why", tone="warn")
        )
    for how in sorted(set(kept.left_out.values())):
        names = [name for name, packed in kept.left_out.items() if packed == how]
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        text = f"packed ({how}), so left out: {names[0]}{more}"
        lines.append(Text(text=text, tone="warn"))
    return tuple(lines)


def brought(kept: Kept) -> Page:
    """What is kept of a base model whose norms came from elsewhere, and on whose word."""
    sample = kept.verification
    if kept.path is None and sample is not None:
        return verified(sample)
    lines = [Text(text=f"{kept.weights} norms are in {kept.path}")]
    if sample is not None:
        text = f"{len(sample.checked)} of the {sample.weights} told were measured again and agree"
        lines.append(Text(text=text, tone="good"))
    if kept.unchecked:
        text = f"{kept.unchecked} of {kept.weights} stand on the word of their file, unchecked"
        lines.append(Text(text=text, tone="warn"))
    return tuple(lines)


def matched(found: BaseMatch, *, every: bool) -> Page:
    """The known base models, best first."""
    recorded = "no base model"
    if found.recorded_base:
        revision = found.recorded_revision
        recorded = f"{found.recorded_base}, {f'revision {revision}' if revision else 'no revision'}"
    shown_here = [c for c in found.candidates if every or not c.why_not][: None if every else _FEW]
    rows = tuple(_candidate_row(c, found.modules) for c in shown_here)
    hidden = len(found.candidates) - len(rows)
    table = Table(
        title="Known base models, the likeliest first",
        head=("model", "revision", "fits", "coverage", "known from", "fingerprint", "recorded"),
        rows=rows,
        left=frozenset({0, 1, 4, 5, 6}),
        spare=("fingerprint", "recorded"),
        note="coverage: share of the base's weights of these kinds that the adapter changes.",
    )
    odd = [
        Text(text=f"not looked at: {u.name}: {u.message}", tone="warn") for u in found.unreadable
    ]
    return (
        Text(text=f"{found.adapter}: {found.modules} modules; records {recorded}", tone="title"),
        *_answer(found),
        *((table,) if rows else ()),
        *(
            (Text(text=f"{hidden} more do not fit: --all shows why.", tone="dim"),)
            if hidden
            else ()
        ),
        *_why_not(shown_here if every else ()),
        *odd,
    )


def _candidate_row(candidate: Candidate, modules: int) -> tuple[str, ...]:
    return (
        candidate.model,
        (candidate.revision or "-")[:12],
        f"{candidate.fits}/{modules}",
        percent(candidate.coverage),
        ", ".join(candidate.known_from),
        candidate.fingerprint[:_FINGERPRINT],
        "yes" if candidate.recorded else "",
    )


def _why_not(candidates: "list[Candidate] | tuple[Candidate, ...]") -> Iterator[Text]:
    for c in candidates:
        if c.why_not:
            yield Text(text=f"{named(c.model, c.revision)}: {c.why_not}", tone="dim")


def _answer(found: BaseMatch) -> Iterator[Text]:
    if found.outcome == "none":
        yield Text(text="NONE: no known base model has these names and shapes.", tone="bad")
        yield Text(
            text="Name more with --base-model, or bring norms: gradience norms import FILE",
            tone="dim",
        )
        return
    first = found.candidates[0]
    if found.outcome == "one":
        yield Text(text=f"LIKELY: {named(first.model, first.revision)}", tone="good")
        yield Text(
            text="It is the only known one with these names, shapes and blocks; one that is not "
            "known here may have the same.",
            tone="dim",
        )
        return
    yield Text(
        text=f"CANNOT TELL: {found.alike} known base models have exactly these names and shapes.",
        tone="warn",
    )
    recorded = [c for c in found.candidates[: found.alike] if c.recorded]
    if len(recorded) == 1:
        yield Text(
            text=f"The adapter's config names {named(recorded[0].model, recorded[0].revision)}.",
        )
