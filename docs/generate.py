"""Write the reference pages and JSON Schemas that follow from the code: `make docs`.

A test calls `pages()` and compares, so that what is committed is current.
"""

import inspect
import json
from collections.abc import Mapping
from pathlib import Path

import msgspec

from gradience.adapter.dialects import DIALECTS
from gradience.artifacts import Envelope
from gradience.audit.base.norms_file import NormsFile
from gradience.audit.base.packed import FORMATS as PACKED
from gradience.audit.finding_kinds import AUDIT
from gradience.audit.metrics import METRICS
from gradience.audit.norms.records import BaseMatch, Kept, NormsList
from gradience.audit.norms.records import Verification as NormsVerification
from gradience.audit.records import AdapterAudit, AuditSet
from gradience.bench.executors import EXECUTORS
from gradience.bench.ledger import EVICTED_SCHEMA, FAILED_SCHEMA, Evicted, Failed
from gradience.bench.plan.forecast import FORECAST_SCHEMA, Forecast
from gradience.bench.records import (
    REPORT_SCHEMA,
    RESULT_SCHEMA,
    SETTINGS_SCHEMA,
    TRIAL_SCHEMA,
    Bench,
    BenchReport,
    Trial,
    TrialResult,
)
from gradience.bench.report.aggregate import SCHEMA as BENCHES_SCHEMA
from gradience.bench.report.aggregate import Benches
from gradience.bench.report.verify import SCHEMA as VERIFY_SCHEMA
from gradience.bench.report.verify import Verification
from gradience.bench.settings import BenchSettings
from gradience.bench.tasks import TASKS
from gradience.check.finding_kinds import CHECK, SOURCES
from gradience.check.records import Verdict
from gradience.compress.records import Compression
from gradience.errors import GradienceError
from gradience.findings import Catalogue
from gradience.storage.change.records import Plan, Receipt
from gradience.storage.checkpoints.records import Listing as Checkpoints
from gradience.storage.doctor.records import Diagnosis
from gradience.storage.environment.explain import EnvironmentReport
from gradience.storage.inventory.records import Inventory
from gradience.storage.outside.records import Outcome
from gradience.storage.preflight.records import Preflight
from gradience.storage.verify.records import Verification as CacheVerification
from gradience.storage.watch.records import Tick
from gradience.telemetry.finding_kinds import MONITOR
from gradience.telemetry.records import SCHEMA as TELEMETRY
from gradience.telemetry.records import Event, RunSummary
from gradience.uses import Uses

DOCS = Path(__file__).parent
NOTE = "<!-- Made by docs/generate.py from the code: change it there, then run `make docs`. -->\n"
UNITS = {"": "dimensionless", "rank": "a number of directions", "weight": "base weight units"}


ARTIFACTS: dict[str, type] = {
    "gradience.audit/v1": AdapterAudit,
    "gradience.audits/v1": AuditSet,
    "gradience.compression/v1": Compression,
    "gradience.base_norms/v1": NormsFile,
    "gradience.norms_kept/v1": Kept,
    "gradience.norms_list/v1": NormsList,
    "gradience.norms_match/v1": BaseMatch,
    "gradience.norms_verify/v1": NormsVerification,
    "gradience.env/v1": EnvironmentReport,
    "gradience.doctor/v1": Diagnosis,
    "gradience.inventory/v1": Inventory,
    "gradience.cache_verify/v1": CacheVerification,
    "gradience.cache_watch/v1": Tick,
    "gradience.plan/v1": Plan,
    "gradience.receipt/v1": Receipt,
    "gradience.checkpoints/v1": Checkpoints,
    "gradience.monitor/v1": RunSummary,
    "gradience.check/v1": Verdict,
    "gradience.preflight/v1": Preflight,
    "gradience.run/v1": Outcome,
    "gradience.uses/v1": Uses,
    SETTINGS_SCHEMA: Bench,
    TRIAL_SCHEMA: Trial,
    RESULT_SCHEMA: TrialResult,
    FAILED_SCHEMA: Failed,
    EVICTED_SCHEMA: Evicted,
    FORECAST_SCHEMA: Forecast,
    REPORT_SCHEMA: BenchReport,
    BENCHES_SCHEMA: Benches,
    VERIFY_SCHEMA: Verification,
}


def pages() -> dict[str, str]:
    """Path below docs/ to content, for every generated file."""
    return {
        "metrics.md": metrics(),
        "findings.md": findings(),
        "formats.md": formats(),
        "bench_keys.md": bench_keys(),
        **{
            f"schemas/{name.removeprefix('gradience.').replace('/', '.')}.json": schema(name, kind)
            for name, kind in ARTIFACTS.items()
        },
        "schemas/telemetry.v1.json": lines(),
    }


def metrics() -> str:
    """The reference of metrics."""
    rows = [
        f"### `{name}`\n\n**{m.title}**, {UNITS[m.unit]}"
        f"{'; needs the base model' if m.needs_base else ''}"
        f"{', packed' if m.needs_packed else ''}.\n\n"
        f"{m.definition}\n\nSource: {m.source}.\n"
        for name, m in METRICS.items()
    ]
    return (
        NOTE
        + """# Metrics

Every adapted weight gets these numbers, from the singular values `s_1 >= s_2 >= ...` of its scaled
change `dW = scale * B @ A`. The name is the JSON key; `summary()` adds `_mean`, `_median`, `_p10`,
`_p50`, `_p90` and `_max` over the modules. Several numbers are called "effective rank" in the
field: here each definition has a name of its own.

A number that is not defined for a module (a module of zeros has no stable rank) is absent from
`metrics` and has its reason in `unmeasured`.

Accuracy: every singular value above 1e-6 of the largest has a relative error of at most
`relative_error`, which is predicted from the condition of the factors and is below 1e-8 but for
factors that cancel one another.

"""
        + "\n".join(rows)
    )


def findings() -> str:
    """The reference of finding codes."""
    return (
        NOTE
        + """# Findings

What a command can report, by stable code. `--fail-on CODE` exits with 1 when a finding has that
code; `--fail-on warning` when one has that severity or a graver one. What `gradience doctor` finds
is on [its own page](doctor.md).

## gradience audit

The verdict is BROKEN for an error, NEEDS A LOOK for a warning, HEALTHY otherwise. A finding about
the base model alone says nothing of the adapter, and moves no verdict.

"""
        + _kinds(AUDIT, {})
        + """
## gradience monitor

The same codes stand in the `alert` lines of a run's log.

"""
        + _kinds(MONITOR, {})
        + """
## gradience check

"""
        + _kinds(CHECK, SOURCES)
        + """
## Errors

What cannot be audited at all ends in an error, with a code of its own in the JSON of several
adapters (`failures`), and an exit code.

| code | exit code | meaning |
|---|---|---|
"""
        + "\n".join(
            f"| `{e.code}` | {int(e.exit_code)} | {e.__doc__} |" for e in kinds(GradienceError)
        )
        + "\n"
    )


def _kinds(catalogue: Catalogue, sources: Mapping[str, str]) -> str:
    return "\n".join(
        f"### `{code}`\n\n*{kind.severity}.* {kind.meaning}\n\n{kind.remedy}\n"
        + (f"\nSource: {sources[code]}.\n" if code in sources else "")
        for code, kind in catalogue.items()
    )


def kinds(error: type[GradienceError]) -> list[type[GradienceError]]:
    """A class of errors and all below it, in the order they are written."""
    below = [kind for child in error.__subclasses__() for kind in kinds(child)]
    return below if error is GradienceError else [error, *below]


def formats() -> str:
    """The list of adapter formats, and of the forms that a base model may come in."""
    rows = [f"| {name} | {dialect.description} |" for name, dialect in DIALECTS.items()]
    packed = [f"| {f.title} | {f.reads} | {f.refuses} | {f.source} |" for f in PACKED.values()]
    return (
        NOTE
        + """# Formats that are read

The keys of a file decide, not its name.

| format | what it is |
|---|---|
"""
        + "\n".join(rows)
        + """

## Base models

`--base-model` reads fp64, fp32, fp16, bf16 and plain fp8, in one file or in shards, safetensors or
`.bin`; heads tied to an embedding; experts stacked or each with tensors of its own; and what is
packed in these formats, as [packed.md](packed.md) says. Anything else is refused by name.

| format | what is read | what is refused | where it is defined |
|---|---|---|---|
"""
        + "\n".join(packed)
        + "\n"
    )


def bench_keys() -> str:
    """Every key of a bench config, of its tasks and executors."""
    tasks = [
        f"### `task.name: {name}`\n\n{task.description[:1].upper()}{task.description[1:]}.\n\n"
        f"{keys(task.options, 'task.options.')}"
        for name, task in TASKS.items()
    ]
    executors = [
        f"### `executor.name: {name}`\n\n{kind.summary[:1].upper()}{kind.summary[1:]}.\n"
        + (f"\n{keys(kind.options, 'executor.options.')}" if kind.options.__struct_fields__ else "")
        for name, kind in EXECUTORS.items()
    ]
    return (
        NOTE
        + """# Keys of a bench config

What `gradience bench --config FILE` reads; [bench.md](bench.md) is the guide. A key without a
default must be given. `--set key=value` overrides one.

"""
        + "\n".join(settings_tables(BenchSettings, "", "The whole"))
        + "\n## Options of the tasks\n\n"
        + "\n".join(tasks)
        + "\n## Executors\n\n"
        + "\n".join(executors)
    )


def settings_tables(kind: type[msgspec.Struct], prefix: str, title: str) -> list[str]:
    """A table of a part of the settings, and of the parts below it."""
    about = (inspect.getdoc(kind) or "").partition("\n\nAttributes")[0]
    found = [f"## {title}\n\n{about}\n\n{keys(kind, prefix)}"]
    for field in msgspec.structs.fields(kind):
        inner = next(iter(getattr(field.type, "__args__", (field.type,))))
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            many = "[i]" if inner is not field.type else ""
            found += settings_tables(inner, f"{field.name}{many}.", f"`{field.name}`")
    return found


def keys(kind: type[msgspec.Struct], prefix: str) -> str:
    """A table of the keys of a struct, from its fields and their descriptions."""
    told = described(kind)
    rows = [
        f"| `{prefix}{field.name}` | {default(field)} | {told[field.name]} |"
        for field in msgspec.structs.fields(kind)
    ]
    return "\n".join(["| key | default | what |", "|---|---|---|", *rows]) + "\n"


def default(field: msgspec.structs.FieldInfo) -> str:
    """How a config would write the default of a key."""
    if field.required:
        return ""
    value = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
    if isinstance(value, msgspec.Struct):
        return "as below"
    return f"`{json.dumps(msgspec.to_builtins(value))}`".replace("|", "\\|")


def described(kind: type[msgspec.Struct]) -> dict[str, str]:
    """Name to description, from the Attributes of a docstring; several names may share one."""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in (inspect.getdoc(kind) or "").partition("----------\n")[2].splitlines():
        if line.startswith(" ") and names:
            for name in names:
                found[name] = f"{found.get(name, '')} {line.strip()}".strip()
        elif line:
            names = [name.strip() for name in line.partition(" : ")[0].split(",")]
    return {name: text.replace("|", "\\|") for name, text in found.items()}


def schema(name: str, content: type) -> str:
    """JSON Schema of an artifact with its envelope."""
    (envelope, inner), components = msgspec.json.schema_components([Envelope, content])
    components["Envelope"]["properties"]["content"] = inner
    components["Envelope"]["properties"]["schema"] = {"const": name}
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": name,
        **envelope,
        "$defs": components,
    }
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def lines() -> str:
    """JSON Schema of one line of a run's log."""
    (line,), components = msgspec.json.schema_components([Event])
    for component in components.values():
        if "event" in component.get("properties", {}):
            component["properties"]["schema"] = {"const": TELEMETRY}
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": TELEMETRY,
        **line,
        "$defs": components,
    }
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def main() -> None:
    """Write every page."""
    for name, text in pages().items():
        path = DOCS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
