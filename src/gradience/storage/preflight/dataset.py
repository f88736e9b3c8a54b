"""The dataset: raw files, the Arrow copy that `datasets` makes of them, and copies by `map()`.

Raw files of the Hub go to the hub cache; the Arrow copy, which is not compressed, to the cache of
`datasets`. How large the copy gets the card says for most datasets; else a stated rule is used.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradience.errors import UsageError
from gradience.hub_ids import is_repo_id
from gradience.storage.preflight import hub
from gradience.storage.preflight.records import Known
from gradience.storage.room.usage import used_below

_DATA = {
    ".parquet": 3.0, ".arrow": 1.0, ".jsonl": 1.0, ".json": 1.0, ".csv": 1.0, ".tsv": 1.0,
    ".txt": 1.0, ".gz": 5.0, ".zst": 5.0, ".xz": 6.0, ".bz2": 5.0, ".zip": 4.0, ".tar": 1.0,
    ".7z": 5.0,
}  # fmt: skip
"""Bytes of Arrow for each byte of a raw file, where nothing better is known."""
_COUNT_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A dataset as a run needs it.

    Attributes
    ----------
    download_bytes : int or None
        Raw files that are not cached yet.
    download_files : int
    arrow_bytes : int or None
        Of the whole Arrow copy.
    made_bytes : int
        Of it and its `map()` copies, what is in the cache already.
    examples : int or None
        Of the training split.
    raw, arrow : str
        How the sizes are known.
    note : str
    unknown : tuple of str
    """

    download_bytes: int | None
    download_files: int = 0
    arrow_bytes: int | None = None
    made_bytes: int = 0
    examples: int | None = None
    raw: Known = "measured"
    arrow: Known = "assumed"
    note: str = ""
    unknown: tuple[str, ...] = ()


def read_dataset(text: str, *, cache: Path, arrow_cache: Path, online: bool, cwd: Path) -> Dataset:
    """Look at a dataset, by file, directory or Hub id; nothing is downloaded.

    Raises
    ------
    UsageError
        If it is none of these.
    """
    place = cwd / text
    if place.exists():
        files = [place] if place.is_file() else [p for p in place.rglob("*") if p.is_file()]
        sizes = {str(p): p.stat().st_size for p in files if p.suffix in _DATA}
        arrow = _arrow_of(sizes)
        return Dataset(download_bytes=0, arrow_bytes=arrow, note=_rule(sizes))
    if not is_repo_id(text.partition("@")[0]):
        raise UsageError(
            f"dataset {text}: there is no such file or directory, and it is no Hub id",
            remedy="Name a file, a directory, or a Hub id such as org/name.",
        )
    repo = hub.look("dataset", text, cache=cache, online=online)
    files_of_data = [f for n, f in repo.files.items() if Path(n).suffix in _DATA]
    absent = [f for f in files_of_data if f.path is None]
    said, examples = _card(repo.card)
    sizes = {f.name: f.bytes for f in files_of_data}
    known = bool(files_of_data)
    made = used_below([arrow_cache / repo.id.replace("/", "___")], seconds=_COUNT_SECONDS).bytes
    return Dataset(
        download_bytes=sum(f.bytes for f in absent) if known else None,
        download_files=len(absent),
        arrow_bytes=said if said is not None else _arrow_of(sizes) if known else None,
        made_bytes=made,
        examples=examples,
        raw=repo.source if known else "unknown",
        arrow="listed" if said is not None else "assumed" if known else "unknown",
        note="as its card says" if said is not None else _rule(sizes),
        unknown=(repo.doubt,) if repo.doubt else (),
    )


def _card(card: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Bytes of Arrow in all configurations, and examples of the only one's training split."""
    infos = card.get("dataset_info")
    infos = infos if isinstance(infos, list) else [infos] if infos else []
    infos = [info for info in infos if isinstance(info, Mapping)]
    sizes = [info.get("dataset_size") for info in infos]
    total = sum(s for s in sizes if isinstance(s, int)) if sizes and all(sizes) else None
    examples = None
    if len(infos) == 1:
        splits = infos[0].get("splits")
        for split in splits if isinstance(splits, list) else []:
            if split.get("name") == "train" and isinstance(split.get("num_examples"), int):
                examples = split["num_examples"]
    return total, examples


def _arrow_of(sizes: Mapping[str, int]) -> int:
    return round(sum(size * _DATA[Path(name).suffix] for name, size in sizes.items()))


def _rule(names: Iterable[str]) -> str:
    kinds = sorted({Path(name).suffix for name in names})
    return ", ".join(f"{_DATA[kind]:g} x {kind}" for kind in kinds) or "no data files"
