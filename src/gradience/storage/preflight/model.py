"""The base model: what of it is fetched, and the shapes of its weights.

`from_pretrained` fetches safetensors where there are some, and their `.bin` twins only where there
are none; of the rest, the configuration and the tokenizer.
"""

import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gradience.errors import TensorFileError, UsageError
from gradience.hub_ids import is_repo_id
from gradience.storage.preflight import hub
from gradience.storage.preflight.checkpoint import Tensor
from gradience.storage.preflight.records import Known
from gradience.tensors.dtypes import is_dtype, storage_bits
from gradience.tensors.opening import open_tensor_file
from gradience.units import plural

_WEIGHTS = (
    ("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model-*-of-*.bin", "pytorch_model.bin.index.json"),
)
_TOKENIZER = (
    "tokenizer*", "special_tokens_map.json", "vocab.*", "merges.txt", "added_tokens.json",
    "*.model", "chat_template*", "sentencepiece*",
)  # fmt: skip
_SMALL = (
    "config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A base model as a run needs it.

    Attributes
    ----------
    tensors : mapping of str to Tensor, or None
        None where the shapes could not be read.
    download_bytes : int or None
        Not cached yet; 0 of a directory; None where that is not known.
    download_files : int
    tokenizer_bytes : int
    known : str
    note : str
        How much is cached already.
    unknown : tuple of str
    """

    tensors: Mapping[str, Tensor] | None
    download_bytes: int | None
    download_files: int = 0
    tokenizer_bytes: int = 0
    known: Known = "measured"
    note: str = ""
    unknown: tuple[str, ...] = ()


def read_model(text: str, *, cache: Path, online: bool, cwd: Path) -> Model:
    """Look at a model, by directory or Hub id; nothing is downloaded but headers.

    Raises
    ------
    UsageError
        If it is neither a directory nor can be a Hub id.
    """
    folder = cwd / text
    if folder.is_dir():
        return _local(folder)
    if folder.exists() or not is_repo_id(text.partition("@")[0]):
        raise UsageError(
            f"model {text}: there is no such directory, and it is no Hub id",
            remedy="Name a model directory, or a Hub id such as org/name.",
        )
    return _on_hub(hub.look("model", text, cache=cache, online=online), online=online)


def fetched(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Of the files of a repository, the weights and the others that `from_pretrained` fetches.

    Examples
    --------
    >>> fetched(["model.safetensors", "pytorch_model.bin", "config.json", "onnx/model.onnx"])
    (['model.safetensors'], ['config.json'])
    """
    listed = list(names)
    weights: list[str] = []
    for patterns in _WEIGHTS:
        weights = weights or [n for n in listed if _any(n, patterns)]
    return weights, [n for n in listed if _any(n, (*_TOKENIZER, *_SMALL))]


def _local(folder: Path) -> Model:
    names = [path.name for path in folder.iterdir() if path.is_file()]
    weights, others = fetched(names)
    tensors, doubts = _shapes([folder / n for n in weights])
    if not weights:
        doubts.append(f"{folder} has no weights file")
    return Model(
        tensors=None if doubts else tensors,
        download_bytes=0,
        tokenizer_bytes=sum((folder / n).stat().st_size for n in others if _any(n, _TOKENIZER)),
        unknown=tuple(doubts),
    )


def _on_hub(repo: hub.HubRepo, *, online: bool) -> Model:
    weights, others = fetched(repo.files)
    files = [repo.files[n] for n in (*weights, *others)]
    absent = [f for f in files if f.path is None]
    here = [f.path for n in weights if (f := repo.files[n]).path is not None]
    tensors, doubts = _shapes(here)
    missing = [n for n in weights if repo.files[n].path is None and n.endswith(".safetensors")]
    if missing and online:
        found, why = hub.headers(repo, missing)
        tensors |= {name: _tensor(*facts) for name, facts in (found or {}).items()}
        doubts += [f"the shapes of {repo.id} are not known: {why}"] if found is None else []
    elif missing:
        doubts.append(f"the shapes of {repo.id} are not known: its weights are not in the cache")
    doubts += [repo.doubt] if repo.doubt else []
    if not weights and not repo.doubt:
        doubts.append(f"{repo.id} has no weights that transformers would fetch")
    unsure = not repo.files or not weights
    cached = sum(f.bytes for f in files) - sum(f.bytes for f in absent)
    return Model(
        tensors=tensors if tensors and not (missing and len(doubts) > bool(repo.doubt)) else None,
        download_bytes=None if unsure else sum(f.bytes for f in absent),
        download_files=len(absent),
        tokenizer_bytes=sum(repo.files[n].bytes for n in others if _any(n, _TOKENIZER)),
        known="unknown" if unsure else repo.source,
        note=f"{plural(len(files), 'file')}, "
        f"{cached * 100 // max(1, sum(f.bytes for f in files))}% cached",
        unknown=tuple(doubts),
    )


def _shapes(paths: Iterable[Path]) -> tuple[dict[str, Tensor], list[str]]:
    tensors: dict[str, Tensor] = {}
    doubts = []
    for path in paths:
        if path.suffix == ".json":
            continue
        try:
            with open_tensor_file(path) as file:
                for name, stored in file.tensors.items():
                    tensors[name] = _tensor(tuple(stored.shape), stored.dtype)
        except TensorFileError as error:
            doubts.append(f"the shapes of {path.name} cannot be read: {error}")
    return tensors, doubts


def _tensor(shape: tuple[int, ...], dtype: str) -> Tensor:
    size = max(1, storage_bits(dtype, (1,)) // 8) if is_dtype(dtype) else 4
    return Tensor(shape=shape, dtype=dtype, itemsize=size)


def _any(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns) and "/" not in name
