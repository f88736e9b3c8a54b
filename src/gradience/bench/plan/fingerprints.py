"""What a trial's numbers depend on beside its settings: base model, data, libraries, our own code.

Each becomes a text that changes when, and only when, the numbers could.
"""

import ast
import platform
import re
from collections.abc import Callable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec
from blake3 import blake3

from gradience.audit.base.source import BaseModel, open_base
from gradience.audit.base.terms import Terms
from gradience.bench.base_model import PACKAGE, base_directory
from gradience.bench.plan.trials import Determinants
from gradience.bench.records import TrialSpec
from gradience.bench.settings import BenchSettings, Device, ModelSettings, TaskSettings
from gradience.bench.tasks import TASKS
from gradience.bench.tasks.rows import is_hub, parse_hub
from gradience.errors import MissingExtraError
from gradience.hub_ids import COMMIT
from gradience.tensors.fingerprint import content_digest
from gradience.tensors.remote.session import answer_seconds, no_answer

LIBRARIES = ("torch", "transformers", "peft", "accelerate", "tokenizers", "numpy")
"""Distributions that every trial's numbers depend on."""

ROOTS = ("gradience.bench.trial.run",)
"""Modules from which our own code is followed."""

_NO_NUMBERS = {
    f"gradience{name}"
    for name in (
        "",
        *(".artifacts", ".errors", ".files", ".findings", ".page", ".paths", ".units", ".uses"),
        *(".audit.frame", ".audit.html", ".audit.notebook"),
        ".bench.ledger",
        *(".bench.records", ".bench.settings"),  # what they hold is in the spec
    )
}
"""Modules, with all below, that write, show, or name things: a release may change them freely."""

_PACKAGE = Path(__file__).parents[2]
_TEXT_SUFFIXES = {".json", ".txt", ".model", ".jinja", ".tiktoken"}
"""Of files beside the weights that change what a model computes: config, tokenizer, template."""

_REGISTERED = re.compile(r"gradience(\.\w+)+:\w+")


def determinants(
    settings: BenchSettings,
    *,
    device: Device,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[BenchSettings, Determinants]:
    """Settings with Hub model and datasets pinned to commits, and what else determines trials.

    Raises
    ------
    BaseModelError
        If the base model cannot be opened.
    MissingExtraError
        If a library that trains is not installed.
    """
    with open_model(settings.model, progress=progress) as base:
        model = settings.model
        if base.revision is not None:
            model = msgspec.structs.replace(model, revision=base.revision)
        base_print = base_fingerprint(model, base)
    settings = msgspec.structs.replace(settings, model=model, task=pinned(settings.task))
    return (
        settings,
        Determinants(
            base=base_print,
            data=data_fingerprints(settings.task),
            versions=versions(settings),
            code=code_fingerprint(ROOTS),
            device=device,
        ),
    )


def open_model(
    model: ModelSettings, *, progress: Callable[[str, int, int], None] | None = None
) -> BaseModel:
    """The base model of settings, open for its names and shapes; no weight is read.

    Raises
    ------
    BaseModelError
        If it is not there.
    """
    if model.id.startswith(PACKAGE) or Path(model.id).exists():
        return open_base(base_directory(model), progress=progress)
    named = model.id if model.revision is None else f"{model.id}@{model.revision}"
    # What cannot be read by range is downloaded: the trials need it whole in any case.
    return open_base(named, terms=Terms(approve=lambda files: None), progress=progress)


def base_fingerprint(model: ModelSettings, base: BaseModel) -> str:
    """Of weights, config and tokenizer.

    The commit of a Hub model covers every file. Of a directory the weights are sampled as the audit
    does it, and the small files beside them are read whole.
    """
    if base.revision is not None:
        return base.fingerprint
    directory = base_directory(model)
    small = sorted(p for p in directory.iterdir() if p.suffix in _TEXT_SUFFIXES and p.is_file())
    told = [base.fingerprint, *(f"{path.name} {content_digest([path])}" for path in small)]
    return f"blake3:{blake3(chr(10).join(told).encode()).hexdigest()}"


def pinned(task: TaskSettings) -> TaskSettings:
    """The task with the commit of every dataset of the Hub, so that all its trials read the same.

    Where the Hub does not answer, the name stays, and the cache decides: the content of the tables
    is fingerprinted in any case.
    """
    train, test = (tuple(map(_pinned, names)) for names in (task.train, task.test))
    return msgspec.structs.replace(task, train=train, test=test)


def _pinned(name: str) -> str:
    if not is_hub(name):
        return name
    hub = parse_hub(name)
    if hub.revision is not None and COMMIT.fullmatch(hub.revision):
        return name
    # Imported here: a fifth of a second that local files need not pay.
    from huggingface_hub import HfApi  # noqa: PLC0415

    try:
        asked = HfApi().dataset_info(hub.path, revision=hub.revision, timeout=answer_seconds())
        commit = asked.sha
    except no_answer():
        return name
    config = "" if hub.config is None else f"#{hub.config}"
    return name if commit is None else f"hub:{hub.path}@{commit}{config}:{hub.split}"


def changed_inputs(spec: TrialSpec) -> list[str]:
    """What a trial would read that is not what its id was made from: files changed under way.

    Raises
    ------
    BaseModelError, TensorFileError
        If one of them cannot be read any more.
    """
    now = data_fingerprints(spec.task)
    changed = [name for name, digest in spec.data.items() if now.get(name) != digest]
    if spec.base:
        with open_model(spec.model) as base:
            if base_fingerprint(spec.model, base) != spec.base:
                changed.append(spec.model.id)
    return changed


def data_fingerprints(task: TaskSettings) -> dict[str, str]:
    """Of every file that the task reads, by the name in the settings.

    Raises
    ------
    TensorFileError
        If a file cannot be read.
    """
    files = TASKS[task.name].files(task)
    return {name: content_digest([path]) for name, path in files.items()}


def versions(settings: BenchSettings) -> dict[str, str]:
    """Of Python and of the libraries that these settings use.

    Raises
    ------
    MissingExtraError
        If one of them is not installed.
    """
    libraries = [*LIBRARIES]
    if settings.task.name == "lm_eval":
        libraries += ["lm_eval", "datasets"]
    elif any(is_hub(name) for name in (*settings.task.train, *settings.task.test)):
        libraries.append("datasets")
    return {"python": platform.python_version(), **{name: _version(name) for name in libraries}}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError as error:
        extra = {"lm_eval": "lm-eval", "datasets": "datasets"}.get(name, "bench")
        raise MissingExtraError(
            f"the bench needs {name}, which is not installed",
            remedy=f"pip install 'gradience[{extra}]'",
        ) from error


@cache
def code_fingerprint(roots: tuple[str, ...], package: Path = _PACKAGE) -> str:
    """Of every module of Gradience that the process of a trial can reach.

    From `gradience.bench.trial.run` imports are followed wherever they stand, in functions too, and
    the `module:attribute` texts of registries, but not into modules that decide no number
    (`_NO_NUMBERS`). What counts of a module is its syntax tree without docstrings: a comment, a
    docstring or a line break makes no trial run again.
    """
    told, todo, seen = [], list(roots), set()
    while todo:
        name = todo.pop()
        path = None if name in seen or _decides_nothing(name) else _source(name, package)
        seen.add(name)
        if path is None:
            continue
        tree = ast.parse(path.read_bytes())
        todo += _imported(tree)
        if path.name == "__init__.py" and _has_registry(tree):
            todo += [f"{name}.{module.stem}" for module in path.parent.glob("[!_]*.py")]
        told.append(f"{name} {blake3(ast.dump(_bare(tree)).encode()).hexdigest()}")
    return f"blake3:{blake3(chr(10).join(sorted(told)).encode()).hexdigest()}"


def _decides_nothing(name: str) -> bool:
    return name in _NO_NUMBERS or any(
        name.startswith(f"{other}.") for other in _NO_NUMBERS - {"gradience"}
    )


def _source(name: str, package: Path) -> Path | None:
    """The file of a module, found without importing it; None for what is no module."""
    path = package.joinpath(*name.split(".")[1:])
    files = (path / "__init__.py", path.with_suffix(".py"))
    return next((file for file in files if file.is_file()), None)


def _imported(tree: ast.AST) -> list[str]:
    """Names below `gradience` that a module imports or registers."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= {node.value.partition(":")[0]} if _REGISTERED.fullmatch(node.value) else set()
    return sorted(n for n in found if n.split(".")[0] == "gradience")


def _has_registry(tree: ast.AST) -> bool:
    """Whether a package writes entries of a registry with f-strings: then all of it counts."""
    return any(isinstance(node, ast.JoinedStr) for node in ast.walk(tree))


def _bare(tree: ast.Module) -> ast.Module:
    """The tree without docstrings."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                del node.body[0]
    return tree
