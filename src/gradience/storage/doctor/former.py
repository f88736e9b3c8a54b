"""Where a cache of this user may lie that nothing leads to any more.

Every such place follows from an environment that may have held once: the empty one, one variable
alone (of this process, of a profile, of what `gradience env` had installed), the layout that
`gradience env` has for a kind of machine. `resolve` says where an environment leads.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from posixpath import basename, dirname

from gradience.paths import is_directory
from gradience.storage.doctor.facts import FORMER, Interpreter
from gradience.storage.doctor.questions import ARROW, TORCH_HUB
from gradience.storage.doctor.values import expanded
from gradience.storage.environment.layout import weights
from gradience.storage.environment.platforms.listed import PLATFORMS
from gradience.storage.environment.readers import Host, resolve
from gradience.storage.inventory.caches import CACHES
from gradience.storage.inventory.places import Place, places

_KINDS = ("hub", "datasets", "dataset_downloads", "dataset_extracted", "torch")
_HUB = "HF_HUB_CACHE"
_NAMES = {
    **{name: name for name in ("HF_HOME", _HUB, "HF_DATASETS_CACHE", "TORCH_HOME")},
    "XDG_CACHE_HOME": "XDG_CACHE_HOME",
    "HUGGINGFACE_HUB_CACHE": _HUB,
    "TRANSFORMERS_CACHE": _HUB,
    "PYTORCH_TRANSFORMERS_CACHE": _HUB,
    "SENTENCE_TRANSFORMERS_HOME": _HUB,
}
"""Variables that decide or decided, and under which name that is known today."""
_PURPOSES = {"datasets": ARROW, "torch": TORCH_HUB}


def former(
    interpreter: Interpreter,
    once: Iterable[tuple[str, str]],
    environ: Mapping[str, str],
    home: Path,
    host: Host,
) -> list[Place]:
    """Directories that may be caches, that are there, and that no library uses.

    Parameters
    ----------
    once : iterable of (str, str)
        Variables that may have led to one, with their values.
    environ : mapping of str to str
        What leads to those in use.
    """
    known = [os.path.realpath(p.path) for p in places(environ, home, host=host)]
    known += [os.path.realpath(use.path) for use in interpreter.uses]
    known += map(os.path.realpath, looked_at(interpreter, environ, home, host).values())
    found: dict[str, Place] = {}
    for variables in _environments(once, environ, home):
        resolved = resolve(variables, home, host=host)
        for kind in _KINDS:
            path = resolved[CACHES[kind].variable].path
            real = os.path.realpath(path)
            if real not in known and real not in found and is_directory(real):
                found[real] = Place(kind=kind, path=path, chosen_by=FORMER)
    return list(found.values())


def looked_at(
    interpreter: Interpreter, environ: Mapping[str, str], home: Path, host: Host
) -> dict[str, str]:
    """Where the caches of datasets and of torch are: as the libraries say, else as they would."""
    named = {place.kind: str(place.path) for place in places(environ, home, host=host)}
    said = {use.purpose: use.path for use in interpreter.uses}
    found = {kind: said.get(purpose, named[kind]) for kind, purpose in _PURPOSES.items()}
    # torch says where models lie, which is below TORCH_HOME.
    if TORCH_HUB in said and basename(found["torch"]) == "hub":
        found["torch"] = dirname(found["torch"])
    return found


def _environments(
    once: Iterable[tuple[str, str]], environ: Mapping[str, str], home: Path
) -> Iterator[Mapping[str, str]]:
    yield {}
    for name, value in once:
        if name in _NAMES and value:
            yield {_NAMES[name]: expanded(value, environ, home)}
            yield {_NAMES[name]: value}  # what an unexpanded value made
    for platform in PLATFORMS.values():
        for root in platform.fixed_roots(environ, home):
            yield {setting.name: setting.value for setting in weights(root, platform.style)}
