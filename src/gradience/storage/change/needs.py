"""What the configs, scripts, checkpoints and adapters below a project need from the caches.

A file needs a repository when its name stands in it as a word: `base_model_name_or_path` of an
adapter, `_name_or_path` of a checkpoint, `model:` of a config, the argument of `from_pretrained`.
Too much is found rather than too little; nothing is executed. A commit beside the name says which
revision; without one, those that a ref names.
"""

import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from gradience.storage.inventory.caches.kind import read_text
from gradience.storage.inventory.records import Inventory

_SUFFIXES = (
    ".json", ".jsonl", ".yaml", ".yml", ".toml", ".py", ".sh", ".ipynb", ".cfg", ".ini", ".env",
    ".txt", ".md", ".slurm", ".sbatch",
)  # fmt: skip
_SKIPPED = {".git", "node_modules", "__pycache__", ".venv", "venv", "site-packages", ".gradience"}
_LARGEST = 1 << 20
_MOST = 50_000
_WORD = re.compile(r"[A-Za-z0-9_][\w.\-]*(?:/[A-Za-z0-9_][\w.\-]*)?")
_COMMIT = re.compile(r"\b[0-9a-f]{40}\b")
_LIST = re.compile(r'\s*\{\s*"schema":\s*"gradience\.(plan|receipt|inventory|cache_verify|doctor)/')
"""Lists of what is in the caches, such as the plan that removes it: they name, and need nothing."""

Needed = Mapping[tuple[str, str], str]


def needs(
    roots: Sequence[Path], revisions: Mapping[str, Mapping[str, Collection[str]]]
) -> tuple[Needed, bool]:
    """Revisions that something below the roots needs, each with the file that says so.

    Parameters
    ----------
    roots : sequence of Path
    revisions : mapping
        What is in the caches: by the name of a repository, its commits with the refs of each.

    Returns
    -------
    mapping of (str, str) to str
        (name, commit) to the path of a file.
    bool
        Whether everything was read; a project with more than 50 000 such files is not.
    """
    found: dict[tuple[str, str], str] = {}
    for number, path in enumerate(_files(roots)):
        if number >= _MOST:
            return found, False
        text = read_text(path, _LARGEST) or ""
        if _LIST.match(text):
            continue
        words = {word.rstrip(".") for word in _WORD.findall(text)}
        for name in words & revisions.keys():
            for commit in _wanted(text, revisions[name]):
                found.setdefault((name, commit), path)
    return found, True


def revisions_of(inventory: Inventory) -> dict[str, dict[str, tuple[str, ...]]]:
    """What is in the hub caches, as `needs` wants it."""
    found: dict[str, dict[str, tuple[str, ...]]] = defaultdict(dict)
    for cache in inventory.caches:
        for entry in cache.entries if cache.kind == "hub" else ():
            for part in entry.parts:
                found[entry.name][part.revision] = part.refs
    return found


def _wanted(text: str, commits: Mapping[str, Collection[str]]) -> Collection[str]:
    named = set(_COMMIT.findall(text)) & commits.keys()
    with_ref = {commit for commit, refs in commits.items() if refs}
    return named or with_ref or set(commits)


def _files(roots: Sequence[Path]) -> Iterator[str]:
    stack = [os.fspath(root) for root in roots]
    while stack:
        try:
            entries = list(os.scandir(stack.pop()))
        except OSError:
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if entry.name not in _SKIPPED:
                    stack.append(entry.path)
            elif entry.name.endswith(_SUFFIXES) and entry.is_file(follow_symlinks=False):
                yield entry.path
