"""Audit an adapter: find, read, measure, compare with its base, judge.

    target -> AdapterLocation -> Adapter -> Spectrum per layer -> LayerAudit -> AdapterAudit

The one module of this part that reads the clock and the environment.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from msgspec.structs import replace

from gradience import paths, uses
from gradience.adapter.layout import AdapterLocation
from gradience.adapter.read import HasToDict, adapter_from_state_dict, opened
from gradience.adapter.records import Adapter
from gradience.adapter.source import find_adapters, find_one
from gradience.audit import cache
from gradience.audit.assemble import assemble
from gradience.audit.base.terms import Approve, Terms, refuse
from gradience.audit.byte_use import stored_tensors
from gradience.audit.finding_kinds import TRANSIENT
from gradience.audit.finite import finite_beside
from gradience.audit.layers import audit_layers
from gradience.audit.records import AdapterAudit, AuditFailure
from gradience.blas import one_thread, threads
from gradience.errors import GradienceError, UsageError
from gradience.findings import Finding
from gradience.system.cpus import usable_cores

if TYPE_CHECKING:
    from gradience.audit.base.norms import BaseNorms
    from gradience.audit.base.norms_only import GivenNorms
    from gradience.audit.base.source import BaseModel

Notice = Callable[[str], None]
"""Told in a sentence what takes long or was left out: a download, a directory skipped."""


class ProgressReport(Protocol):
    """Told how far a stage is."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """`done` of `total` units of `stage` are done."""


def _no_progress(stage: str, done: int, total: int) -> None:
    """Nobody listens."""


def _no_notice(sentence: str) -> None:
    """Nobody listens."""


class AuditOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to audit.

    Attributes
    ----------
    base_model_id : str or Path or None
        Directory, safetensors file or index, Hub id with optional `@revision`, or address (https,
        or a protocol of fsspec); None for an audit of the file alone.
    cache_dir : Path
        Where it is remembered what was read from a hub cache.
    base_norms_dir : Path
        Where norms of base models are kept.
    audits_dir : Path or None
        Where finished audits are kept; None to keep none and believe none.
    width : float
        Relative width asked of the interval of every base norm.
    device : str
        Where norms of the base are computed, and nothing else: `cpu`, `cuda` or `cuda:1`; `auto`
        takes CUDA where torch finds it and the work is worth it.
    given : GivenNorms or None
        Norms of the base from elsewhere; without `base_model_id` they stand for the base.
    progress : callable
        Told (stage, done, total); of a base elsewhere from the thread that fetches, too.
    notice : callable
        Told in a sentence what takes long, such as a download.
    terms : Terms
        What of base models may come over the network.
    """

    base_model_id: str | Path | None
    cache_dir: Path
    base_norms_dir: Path
    audits_dir: Path | None
    width: float = 1e-3
    device: str = "auto"
    given: "GivenNorms | None" = None
    progress: ProgressReport = _no_progress
    notice: Notice = _no_notice
    terms: Terms = msgspec.field(default_factory=Terms)


def audit_lora_peft_dir(
    peft_dir: str | os.PathLike[str],
    *,
    base_model_id: str | os.PathLike[str] | None = None,
    base_norms_cache: str | os.PathLike[str] | None = None,
    base_norms_from: str | os.PathLike[str] | None = None,
    use_cache: bool = True,
    width: float = 1e-3,
    device: str = "auto",
    max_download: int | None = None,
    approve: Approve = refuse,
    progress: ProgressReport | None = None,
    notice: Notice | None = None,
) -> AdapterAudit:
    """Audit one adapter.

    Parameters
    ----------
    peft_dir : path or str
        Directory, weights file or Hub id of one adapter: what `gradience audit` takes.
    base_model_id : path or str, optional
        The base model, for UDR. What of it is not on this disk is read by range and not written.
    base_norms_cache : path, optional
        Directory for the norms of base models; `$GRADIENCE_CACHE_DIR/base_norms` without it.
    base_norms_from : path or str, optional
        Exported norms: a file, a URL or a Hub repository. They stand for the base model, or must be
        of the one that is named.
    use_cache : bool
        Believe and write remembered audits. The norms of base models are remembered either way.
    width, device, progress, notice
        As in `AuditOptions`; `max_download` and `approve` as `limit` and `approve` in `Terms`.

    Returns
    -------
    AdapterAudit
        Frozen; see `summary()`, `to_dict()`, `to_json()`, `to_frame()`.

    Raises
    ------
    GradienceError
        If the adapter or the base model cannot be read; says which file, and what to do.

    Examples
    --------
    >>> audit_lora_peft_dir("examples/demo_adapter", use_cache=False).max_rank
    8
    """
    options = audit_options(
        base_model_id=base_model_id,
        base_norms_cache=base_norms_cache,
        base_norms_from=base_norms_from,
        use_cache=use_cache,
        width=width,
        device=device,
        max_download=max_download,
        approve=approve,
        progress=progress,
        notice=notice,
    )
    return audit_location(find_one(peft_dir, notice=options.notice), options)


def audit_lora_state_dict(
    state_dict: Mapping[str, Any],
    config: Mapping[str, Any] | HasToDict | None,
    *,
    base_model_id: str | os.PathLike[str] | None = None,
    base_norms_cache: str | os.PathLike[str] | None = None,
    base_norms_from: str | os.PathLike[str] | None = None,
    width: float = 1e-3,
    device: str = "auto",
    max_download: int | None = None,
    approve: Approve = refuse,
    progress: ProgressReport | None = None,
    notice: Notice | None = None,
) -> AdapterAudit:
    """Audit an adapter that is in memory, such as the result of `get_peft_model_state_dict`.

    Parameters
    ----------
    state_dict : mapping of str to numpy array or torch tensor
    config : mapping, peft config or None
        The content of adapter_config.json; None for formats that carry their scale.
    base_model_id, base_norms_cache, base_norms_from, width, device, max_download, approve
    progress, notice
        As in `audit_lora_peft_dir`.

    Raises
    ------
    GradienceError
        As `audit_lora_peft_dir`.
    """
    options = audit_options(
        base_model_id=base_model_id,
        base_norms_cache=base_norms_cache,
        base_norms_from=base_norms_from,
        use_cache=False,
        width=width,
        device=device,
        max_download=max_download,
        approve=approve,
        progress=progress,
        notice=notice,
    )
    adapter = adapter_from_state_dict(state_dict, config)
    nbytes = sum(tensor.nbytes for _, tensor in stored_tensors(adapter))
    with _base(options) as base:
        return _audit(adapter, nbytes, base, options)


def audit_options(
    *,
    base_model_id: str | os.PathLike[str] | None = None,
    base_norms_cache: str | os.PathLike[str] | None = None,
    base_norms_from: str | os.PathLike[str] | None = None,
    use_cache: bool = True,
    width: float = 1e-3,
    device: str = "auto",
    max_download: int | None = None,
    approve: Approve = refuse,
    progress: ProgressReport | None = None,
    notice: Notice | None = None,
) -> AuditOptions:
    """Options with the defaults of this machine: `GRADIENCE_CACHE_DIR`, else `~/.cache/gradience`.

    Raises
    ------
    GradienceError
        If exported norms cannot be had or believed.
    UsageError
        If GRADIENCE_CACHE_DIR is no absolute path, `width` no positive number, or `device` none, or
        a GPU without a base model.
    """
    if not 0 < width < 1:
        raise UsageError(f"width={width!r} is not between 0 and 1", remedy="The default is 1e-3.")
    if base_model_id is not None or device != "auto":
        # Imported here: 30 ms, if there is a base or a wish.
        from gradience.audit.base.devices import check_device  # noqa: PLC0415

        check_device(device, has_base=base_model_id is not None)
    home = Path.home()
    return AuditOptions(
        base_model_id=base_model_id
        if base_model_id is None or isinstance(base_model_id, str)
        else Path(base_model_id),
        cache_dir=paths.cache_dir(os.environ, home),
        base_norms_dir=paths.base_norms_dir(os.environ, home)
        if base_norms_cache is None
        else paths.as_path(base_norms_cache, home),
        audits_dir=paths.audits_dir(os.environ, home) if use_cache else None,
        width=width,
        device=device,
        given=_given(base_norms_from, notice or _no_notice),
        progress=progress or _no_progress,
        notice=notice or _no_notice,
        terms=Terms(limit=max_download, approve=approve),
    )


def audit_targets(
    targets: Sequence[str | os.PathLike[str]], options: AuditOptions
) -> tuple[AdapterAudit | AuditFailure, ...]:
    """Audit everything that the targets name.

    Of several, one that names nothing or cannot be read is an `AuditFailure`.

    Raises
    ------
    GradienceError
        If the only target names nothing, or the only adapter or the base model cannot be read.
    """
    found: list[AdapterLocation] = []
    missing: list[AuditFailure] = []
    for target in targets:
        try:
            found += find_adapters(target, notice=options.notice)
        except GradienceError as error:
            if len(targets) == 1:
                raise
            missing.append(_failure(os.fspath(target), error))
    # The same file named twice is one adapter.
    locations = list({location.weights.absolute(): location for location in found}.values())
    if len(locations) == 1 and not missing:
        return (audit_location(locations[0], options),)
    if not locations:
        return tuple(missing)
    results: list[AdapterAudit | AuditFailure] = []
    # Opened once for all: a base elsewhere is asked for its headers each time.
    with _base(options) as base:
        for number, location in enumerate(locations, start=1):
            try:
                with opened(location) as adapter:
                    results.append(_audited(location, adapter, base, options))
            except GradienceError as error:
                results.append(_failure(location.source, error))
            options.progress("adapters", number, len(locations))
    return (*results, *missing)


def audit_location(location: AdapterLocation, options: AuditOptions) -> AdapterAudit:
    """Audit one adapter that was found, or recall its audit.

    Raises
    ------
    GradienceError
        If the adapter or the base model cannot be read.
    """
    with opened(location) as adapter, _base(options) as base:
        return _audited(location, adapter, base, options)


def _audited(
    location: AdapterLocation, adapter: Adapter, base: "BaseModel | None", options: AuditOptions
) -> AdapterAudit:
    """The audit of an open adapter; that it was read is noted."""
    size = location.weights.stat().st_size if location.weights.exists() else 0
    audit = _recalled_or_made(adapter, size, base, options)
    read = [*map(Path, adapter.files), *(base.opened_files() if base else ())]
    uses.note(options.cache_dir, read, now=datetime.now(UTC))
    return audit


def _recalled_or_made(
    adapter: Adapter, file_bytes: int, base: "BaseModel | None", options: AuditOptions
) -> AdapterAudit:
    """The audit from memory where there is one for this adapter, base and options."""
    if options.audits_dir is None:
        return _audit(adapter, file_bytes, base, options)
    name = _key(adapter, base, options)
    remembered = cache.recall(options.audits_dir, name)
    if remembered.audit is not None:
        return msgspec.structs.replace(remembered.audit, source=adapter.source, files=adapter.files)
    audit = _audit(adapter, file_bytes, base, options)
    return _remembered(audit, options.audits_dir, name, remembered.finding)


def _key(adapter: Adapter, base: "BaseModel | None", options: AuditOptions) -> str:
    """What determines the numbers of an audit; files beside the weights determine findings."""
    return cache.key(
        {
            "adapter": adapter.fingerprint,
            "findings": ",".join(finding.message for finding in adapter.findings),
            "base": base.fingerprint if base else None,
            "base_name": f"{base.model}@{base.revision}" if base else None,
            # From config.json, which is not in the fingerprint; it decides whose weight a head is.
            "base_tied": base.tied if base else None,
            # From there too; it decides what packed numbers mean.
            "base_quantisation": repr(sorted(base.quantisation.items())) if base else None,
            "width": options.width,
            **({"norms_from": options.given.digest} if options.given else {}),
        }
    )


def _remembered(
    audit: AdapterAudit, directory: Path, name: str, doubt: Finding | None
) -> AdapterAudit:
    """Remember an audit; what went wrong with a cache is added for this once.

    One that stands on norms which nobody checked is not remembered: somebody may, any time.
    """
    if audit.base is not None and audit.base.unchecked:
        return audit
    kept = [f for f in audit.findings if f.code not in TRANSIENT]
    refused = cache.remember(
        directory, name, msgspec.structs.replace(audit, findings=tuple(kept)), now=datetime.now(UTC)
    )
    troubles = tuple(finding for finding in (doubt, refused) if finding is not None)
    return msgspec.structs.replace(audit, findings=(*audit.findings, *troubles))


def _audit(
    adapter: Adapter, file_bytes: int, base: "BaseModel | None", options: AuditOptions
) -> AdapterAudit:
    count = threads(os.environ, usable_cores())
    # Threads of our own and threads of BLAS would be more than there are cores.
    with one_thread(os.environ if count == 1 else {}):
        norms = _norms(adapter, base, options) if base else None
        layers = audit_layers(
            adapter.layers,
            norms,
            width=options.width,
            progress=options.progress,
            threads=count,
        )
    measured = replace(layers, findings=(*layers.findings, *finite_beside(adapter)))
    return assemble(adapter, measured, norms, file_bytes=file_bytes)


def _norms(adapter: Adapter, base: "BaseModel", options: AuditOptions) -> "BaseNorms":
    # Imported here: 30 ms, if there is a base.
    from gradience.audit.base.devices import choice  # noqa: PLC0415
    from gradience.audit.base.known import Settings  # noqa: PLC0415
    from gradience.audit.base.norms import base_norms  # noqa: PLC0415
    from gradience.audit.base.spectral_norm import Goal  # noqa: PLC0415

    settings = Settings(
        options.base_norms_dir,
        datetime.now(UTC),
        Goal(width=options.width),
        choice(options.device, os.environ),
        given=options.given,
        progress=options.progress,
        notice=options.notice,
    )
    return base_norms(
        adapter.layers,
        base,
        settings,
        layer_replication=adapter.config.get("layer_replication"),
    )


def _given(source: str | os.PathLike[str] | None, notice: Notice) -> "GivenNorms | None":
    if source is None:
        return None
    from gradience.audit.norms.travel import fetch  # noqa: PLC0415 - if norms are brought along

    return fetch(source, notice=notice)


def _base(options: AuditOptions) -> "AbstractContextManager[BaseModel | None]":
    if options.base_model_id is None:
        return nullcontext(options.given.base() if options.given else None)
    from gradience.audit.base.source import open_base  # noqa: PLC0415 - as above

    base = open_base(options.base_model_id, terms=options.terms, progress=options.progress)
    if options.given:
        options.given.check_same(base)
    return base


def _failure(source: str, error: GradienceError) -> AuditFailure:
    return AuditFailure(
        source=source,
        code=error.code,
        message=str(error),
        remedy=error.remedy,
        exit_code=int(error.exit_code),
    )
