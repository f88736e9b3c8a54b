"""`gradience audit`: parse, call the library, print, exit."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gradience.blas import start_alone
from gradience.cli.download import download_options, progress_and_terms
from gradience.cli.fail_on import fail_on_option
from gradience.cli.visible import visible
from gradience.cli.whole import Whole
from gradience.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from gradience.audit.records import AdapterAudit, AuditFailure


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option(
    "--base-model",
    metavar="DIR|FILE|ID[@REV]|URL",
    help="Base model for UDR, quantised or not: a directory, a weights file or index, a Hub id, or "
    "an address (https, s3, gs, ...). What is not on this disk is read by range and not written.",
)
@download_options
@click.option(
    "--base-norms-cache",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Where norms of base models are kept. [default: $GRADIENCE_CACHE_DIR/base_norms]",
)
@click.option(
    "--base-norms-from",
    metavar="FILE|URL|ID[@REV]",
    help="Norms of the base model that were exported by `gradience norms export`: a file, a URL or "
    "a Hub repository. With them UDR needs no base model.",
)
@click.option(
    "--width",
    type=float,
    default=1e-3,
    show_default=True,
    help="Relative width asked of the certified interval of each base norm.",
)
@click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="auto|cpu|cuda[:N]",
    help="Where norms of the base model are computed; CUDA needs torch.",
)
@click.option("--layers", "all_layers", is_flag=True, help="Show every module.")
@click.option(
    "--top",
    type=Whole(min=1),
    default=5,
    show_default=True,
    metavar="N",
    help="How many modules are worth a look.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the audit as JSON, and nothing else.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the audit as JSON to FILE too.",
)
@click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write one self-contained page with charts to FILE.",
)
@fail_on_option()
@click.option(
    "--append",
    "append_to",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="LOG",
    help="Add the summary to the run.jsonl of the run that trained the adapter.",
)
@click.option("--no-cache", is_flag=True, help="Neither believe nor keep remembered audits.")
def audit(
    *,
    paths: tuple[str, ...],
    all_layers: bool,
    top: int,
    as_json: bool,
    output: Path | None,
    html: Path | None,
    fail_on: tuple[str, ...],
    append_to: Path | None,
    **how: Any,
) -> int:
    """Audit trained LoRA adapters: what each learned, and how much of its rank it uses.

    PATH is an adapter directory (PEFT), a weights file (PEFT, kohya, diffusers), a directory above
    several, or a Hub id such as org/name@revision. Several adapters are compared side by side.

    \b
    gradience audit runs/my-adapter
    gradience audit runs/my-adapter --base-model mistralai/Mistral-7B-v0.1
    gradience audit runs/my-adapter --base-norms-from norms/mistral-7b.json
    gradience audit runs/* --json > audits.json
    gradience audit runs/my-adapter --fail-on error   # in CI

    Exit codes: 0 done; 1 a finding of --fail-on; 2 usage; 3 an adapter or base model that cannot
    be read, or a base that is not the adapter's; 4 a missing extra; 5 the disk or your limit
    refused.
    """
    start_alone(os.environ)
    # Imported here: numpy and its kin take a tenth of a second that `--help` need not pay.
    from datetime import UTC, datetime  # noqa: PLC0415

    from gradience.audit.finding_kinds import AUDIT  # noqa: PLC0415
    from gradience.findings import check_fail_on  # noqa: PLC0415

    check_fail_on(fail_on, AUDIT, page="docs/findings.md")
    results = _audited(paths, **how)
    now = datetime.now(UTC)
    _write_files(results, output=output, html=html, now=now)
    if append_to is not None:
        from gradience.telemetry.audits import append_audits  # noqa: PLC0415

        append_audits(append_to, _split(results)[0])
    if as_json:
        click.echo(_artifact(results, now), nl=False)
    else:
        _show(results, top=top, all_layers=all_layers)
    return _exit_code(results, fail_on)


def _audited(
    paths: tuple[str, ...],
    *,
    base_model: str | None,
    max_download: str | None,
    yes: bool,
    base_norms_cache: Path | None,
    base_norms_from: str | None,
    width: float,
    device: str,
    no_cache: bool,
) -> "Sequence[AdapterAudit | AuditFailure]":
    """The audits, with a bar and questions where somebody looks."""
    from gradience.audit.run import audit_options, audit_targets  # noqa: PLC0415

    with progress_and_terms(max_download=max_download, yes=yes) as (progress, terms):
        options = audit_options(
            base_model_id=base_model,
            base_norms_cache=base_norms_cache,
            base_norms_from=base_norms_from,
            use_cache=not no_cache,
            width=width,
            device=device,
            max_download=terms.limit,
            approve=terms.approve,
            progress=progress,
            notice=lambda sentence: click.echo(visible(sentence), err=True),
        )
        return audit_targets(paths, options)


def _show(results: "Sequence[AdapterAudit | AuditFailure]", *, top: int, all_layers: bool) -> None:
    from gradience.audit.report import comparison, page  # noqa: PLC0415
    from gradience.cli.render import show  # noqa: PLC0415

    audits, failures = _split(results)
    if len(results) == 1 and audits:
        show(page(audits[0], top=top, all_layers=all_layers))
    else:
        show(comparison(audits, failures))


def _write_files(
    results: "Sequence[AdapterAudit | AuditFailure]",
    *,
    output: Path | None,
    html: Path | None,
    now: "datetime",
) -> None:
    from gradience import files  # noqa: PLC0415

    if output is not None:
        files.replace(output, _artifact(results, now))
        click.echo(f"wrote {visible(str(output))}", err=True)
    if html is not None:
        from gradience.audit.html.page import render  # noqa: PLC0415

        files.replace(html, render(_split(results)[0], now=now).encode())
        click.echo(f"wrote {visible(str(html))}", err=True)


def _artifact(results: "Sequence[AdapterAudit | AuditFailure]", now: "datetime") -> bytes:
    from gradience import artifacts  # noqa: PLC0415
    from gradience.audit.records import SCHEMA, SET_SCHEMA, AuditSet  # noqa: PLC0415

    audits, failures = _split(results)
    if len(results) == 1 and audits:
        return artifacts.encode(SCHEMA, audits[0], now=now)
    both = AuditSet(audits=tuple(audits), failures=tuple(failures))
    return artifacts.encode(SET_SCHEMA, both, now=now)


def _split(
    results: "Sequence[AdapterAudit | AuditFailure]",
) -> "tuple[list[AdapterAudit], list[AuditFailure]]":
    from gradience.audit.records import AdapterAudit, AuditFailure  # noqa: PLC0415

    return (
        [r for r in results if isinstance(r, AdapterAudit)],
        [r for r in results if isinstance(r, AuditFailure)],
    )


def _exit_code(results: "Sequence[AdapterAudit | AuditFailure]", fail_on: tuple[str, ...]) -> int:
    """3 or so for what could not be read, 3 for a base that is none; 1 for `--fail-on`; else 0."""
    from gradience.audit.base.finding_kinds import BASE_MODEL_MISMATCH  # noqa: PLC0415
    from gradience.findings import failing  # noqa: PLC0415

    audits, failures = _split(results)
    if failures:
        return max(failure.exit_code for failure in failures)
    if any(f.code == BASE_MODEL_MISMATCH.code for a in audits for f in a.findings):
        return int(ExitCode.UNREADABLE)  # the UDR that was asked for could not be had
    matched = [f for a in audits for f in failing(a.findings, fail_on)]
    return int(ExitCode.BAD_NEWS if matched else ExitCode.OK)
