"""Ask each installed library, in a process of its own, where it really keeps its bytes.

A process per library costs an import (0.03 s for the hub's constants, five for diffusers) but is
the only proof: what a library does with `~`, `$VAR`, an empty value or an old variable differs from
library to library and from version to version. They are asked at once, and the answer is
remembered under everything it depends on: interpreter, versions, environment, working directory.
"""

import contextlib
import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from blake3 import blake3

from gradience import files
from gradience.errors import StorageError, UsageError
from gradience.paths import cache_dir
from gradience.storage.doctor.facts import Interpreter, Library, Use
from gradience.storage.doctor.questions import QUESTIONS, Question

Progress = Callable[[str, int, int], None]

TIMEOUT_SECONDS = 90.0
ASKING = "asking the libraries"
_MARK = "gradience-answer:"
_LIST = """
import json, re, sys
from importlib import metadata
found, damaged, reached, whole = {}, {}, set(), True
asked, imported = json.loads(sys.argv[1])
for name in asked:
    try:
        version = metadata.version(name)
        if not isinstance(version, str):
            raise ValueError("no version in it")
        found[name] = version
    except metadata.PackageNotFoundError:
        pass
    except Exception as error:  # whatever a damaged file makes of it: told
        damaged[name] = type(error).__name__ + ": " + str(error)
def plain(name):
    return re.sub("[-_.]+", "-", name).lower()
try:
    owners = metadata.packages_distributions() if imported else {}
    waiting = [plain(owner) for name in imported for owner in owners.get(name, ())]
except Exception:  # before Python 3.10, or a damaged package: who needs whom is not known
    whole, waiting = False, []
while waiting:
    name = waiting.pop()
    if name not in reached:
        reached.add(name)
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            needs = []
        except Exception:  # damaged: what it needs is not known
            whole, needs = False, []
        waiting += [plain(re.match("[A-Za-z0-9._-]+", n)[0]) for n in needs if "extra ==" not in n]
loaded = [name for name in found if plain(name) in reached] if imported and whole else list(found)
print("gradience-answer:" + json.dumps({
    "version": "%d.%d.%d" % sys.version_info[:3], "executable": sys.executable, "found": found,
    "damaged": damaged, "loaded": loaded}))
"""
# `python -c` puts the working directory first on the path, where a folder named `datasets` would
# shadow the library: a program's own directory does not matter to where its libraries write.
_ASK = """
import json, os, sys
if sys.path and sys.path[0] == "":
    del sys.path[0]
say, problem = {}, ""
try:
    exec(sys.argv[1])
except BaseException as error:
    problem = (type(error).__name__ + ": " + str(error)).strip()
answers = {k: [str(v), os.path.abspath(str(v))] for k, v in say.items()}
sys.stdout.flush()
print("\\n" + sys.argv[2] + json.dumps({"answers": answers, "problem": problem}), flush=True)
os._exit(0)
"""
_RELEVANT = (
    "HF_", "HUGGINGFACE_", "TORCH", "PYTORCH_", "TRANSFORMERS_", "TRITON_", "DATASETS_", "WANDB_",
    "XDG_", "VLLM_", "SENTENCE_TRANSFORMERS_", "DIFFUSERS_", "ACCELERATE_", "PYTHON", "VIRTUAL_ENV",
    "HOME", "TMP", "TEMP", "USER", "LOGNAME", "CONDA_PREFIX", "LD_LIBRARY_PATH",
)  # fmt: skip
_QUIET = {
    "PYTHONDONTWRITEBYTECODE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "WANDB_MODE": "disabled",
    "PYTHONWARNINGS": "ignore",
}


def probe(
    python: Path,
    *,
    environ: Mapping[str, str],
    home: Path,
    cwd: Path,
    only: Sequence[str] = (),
    imported: Sequence[str] = (),
    use_cache: bool = True,
    timeout: float = TIMEOUT_SECONDS,
    progress: Progress | None = None,
) -> Interpreter:
    """The paths that the libraries of an interpreter really use.

    Parameters
    ----------
    python : Path
        The interpreter.
    environ : mapping of str to str
        The environment the libraries see.
    home, cwd : Path
        `home` only for where answers are remembered.
    only : sequence of str
        Ask these libraries alone; all that are installed by default.
    imported : sequence of str
        What a program imports: what no library loads by itself (`Question.alone`) is asked only
        where one of these is it, or requires it. Empty where no program is known.
    timeout : float
        Seconds for one library; one that takes longer is listed with that problem.
    progress : callable, optional
        Called with a stage, how many libraries have answered, and of how many.

    Raises
    ------
    UsageError
        If `python` cannot be run as an interpreter, or a library is none that we can ask.
    """
    _check(only)
    found, loaded, damaged = _installed(python, environ, cwd, imported)
    asked = {
        name: question
        for name, question in QUESTIONS.items()
        if (not question.distribution or question.distribution in found.distributions)
        and (name in only if only else question.distribution in loaded or not question.alone)
    }
    store = _Store(python, found, environ, home, cwd) if use_cache else None
    known = {n: x for n, q in asked.items() if store and (x := store.load(n, q)) is not None}
    fresh: dict[str, Library] = {}
    with ThreadPoolExecutor(max_workers=max(2, min(8, os.cpu_count() or 2))) as pool:
        waiting = {}
        for name in asked.keys() - known.keys():
            version = found.distributions.get(asked[name].distribution, found.version)
            task = pool.submit(
                _ask, python, name, version, environ=environ, cwd=cwd, timeout=timeout
            )
            waiting[task] = name
        if progress and waiting:
            progress(ASKING, 0, len(waiting))
        for future in as_completed(waiting):
            name = waiting[future]
            fresh[name] = future.result()
            if progress:
                progress(ASKING, len(fresh), len(waiting))
            if store and not fresh[name].problem:
                store.save(name, asked[name], fresh[name])
    return Interpreter(
        executable=found.executable,
        version=found.version,
        libraries=(
            *((known | fresh)[name] for name in asked),
            *(
                Library(name=name, version="", problem=f"its metadata is damaged: {why[:400]}")
                for name, question in QUESTIONS.items()
                if (why := damaged.get(question.distribution)) and (name in only or not only)
            ),
        ),
        distributions=found.distributions,
    )


def _check(only: Sequence[str]) -> None:
    for name in only:
        if name not in QUESTIONS:
            raise UsageError(
                f"{name} is no library that can be asked",
                remedy=f"Known: {', '.join(QUESTIONS)}.",
            )


class _Found(NamedTuple):
    """An interpreter's own name and version, and the versions of the libraries it has."""

    executable: str
    version: str
    distributions: dict[str, str]


def _installed(
    python: Path, environ: Mapping[str, str], cwd: Path, imported: Sequence[str]
) -> tuple[_Found, frozenset[str], dict[str, str]]:
    """What an interpreter has, which of it these imports can load, and what is damaged, and how."""
    names = sorted({q.distribution for q in QUESTIONS.values() if q.distribution})
    command = [str(python), "-c", _LIST, json.dumps([names, list(imported)])]
    try:
        result = _run(command, environ, cwd, 30.0)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _not_python(python, str(error)) from error
    answer = _answer(result.stdout)
    if answer is None:
        raise _not_python(python, _last_line(result.stderr) or f"exit code {result.returncode}")
    found = _Found(answer["executable"], answer["version"], answer["found"])
    return found, frozenset(answer["loaded"]), answer["damaged"]


def _ask(
    python: Path,
    name: str,
    version: str,
    *,
    environ: Mapping[str, str],
    cwd: Path,
    timeout: float,
) -> Library:
    """One library's answer; every way to fail ends as the library's `problem`."""
    question = QUESTIONS[name]
    command = [str(python), "-c", _ASK, question.code, _MARK]
    try:
        result = _run(command, environ, cwd, timeout)
    except subprocess.TimeoutExpired:
        problem = f"did not answer in {timeout:g} s"
        return Library(name=name, version=version, problem=problem)
    except OSError as error:
        return Library(name=name, version=version, problem=str(error))
    answer = _answer(result.stdout)
    if answer is None:
        code = result.returncode
        how = f"died of signal {-code}" if code < 0 else f"ended with exit code {code}"
        problem = f"its process {how}: {_last_line(result.stderr)}".rstrip(": ")
        return Library(name=name, version=version, problem=problem)
    uses = tuple(
        Use(
            library=name,
            purpose=purpose,
            path=path,
            answer=said,
            variables=tuple(question.variables[purpose]),
            asked=question.asked,
        )
        for purpose, (said, path) in answer["answers"].items()
    )
    return Library(name=name, version=version, uses=uses, problem=answer["problem"][:400])


def _run(
    command: list[str], environ: Mapping[str, str], cwd: Path, timeout: float
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command,
        env={**environ, **_QUIET},
        cwd=cwd,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )


def _answer(stdout: str) -> Any:
    """What follows the mark on the last line that has it; libraries print of their own accord."""
    for line in reversed(stdout.splitlines()):
        if line.startswith(_MARK):
            with contextlib.suppress(json.JSONDecodeError):
                return json.loads(line.removeprefix(_MARK))
    return None


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


def _not_python(python: Path, why: str) -> UsageError:
    return UsageError(
        f"{python} cannot be run as a Python interpreter: {why}",
        remedy="Name one: gradience doctor --python /path/to/venv/bin/python",
    )


class _Store:
    """Answers on disk, each under a digest of everything it depends on.

    A full or read-only disk must not stop a diagnosis: what cannot be kept is asked again.
    """

    def __init__(
        self,
        python: Path,
        found: _Found,
        environ: Mapping[str, str],
        home: Path,
        cwd: Path,
    ) -> None:
        relevant = {
            k: v for k, v in sorted(environ.items()) if k.startswith(_RELEVANT) and not _secret(k)
        }
        # An answer moves with the working directory only where a value does.
        here = str(cwd) if any(_moves(environ.get(name)) for name in _DECIDING) else ""
        self._cwd = cwd
        self._basis = json.dumps([str(python.absolute()), found, relevant, here])
        self._folder: Path | None = None
        with contextlib.suppress(UsageError):
            self._folder = cache_dir(environ, home) / "doctor" / "answers"

    def load(self, name: str, question: Question) -> Library | None:
        """A remembered answer, or None."""
        if self._folder is None:
            return None
        with contextlib.suppress(OSError, msgspec.DecodeError):
            data = self._path(name, question).read_bytes()
            library = msgspec.json.decode(data, type=Library)
            uses = tuple(
                msgspec.structs.replace(use, path=os.path.normpath(self._cwd / use.answer))
                for use in library.uses
            )
            return msgspec.structs.replace(library, uses=uses, remembered=True)
        return None

    def save(self, name: str, question: Question, library: Library) -> None:
        """Remember an answer where the disk allows."""
        if self._folder is not None:
            # UnicodeEncodeError: a path that is no text, which JSON cannot hold.
            with contextlib.suppress(StorageError, UnicodeEncodeError):
                files.replace(self._path(name, question), msgspec.json.encode(library))

    def _path(self, name: str, question: Question) -> Path:
        assert self._folder is not None
        digest = blake3(f"{self._basis}\n{_ASK}\n{question!r}".encode()).hexdigest()[:32]
        return self._folder / f"{name}-{digest}.json"


_DECIDING = frozenset(
    variable
    for question in QUESTIONS.values()
    for variables in question.variables.values()
    for variable, _ in variables
)


def _moves(value: str | None) -> bool:
    return value is not None and not value.startswith(("/", "~/"))


def _secret(name: str) -> bool:
    return name.endswith(("TOKEN", "KEY", "PASSWORD", "SECRET"))
