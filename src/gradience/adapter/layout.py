"""What the names of the files in one directory say about the adapters in it. Pure.

The same rules serve a local directory and the file list of a Hub repository.
"""

import re
from collections.abc import Callable, Collection
from pathlib import Path

import msgspec

from gradience.errors import AdapterNotFoundError

Notice = Callable[[str], None]
"""Told, in a sentence, what happens: a directory skipped, the Hub asked."""

CONFIG = "adapter_config.json"
PEFT_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
"""In the order PEFT prefers them (`load_peft_weights`)."""
DIFFUSERS_WEIGHTS = ("pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin")

_FULL_MODEL = re.compile(
    r"(model|pytorch_model|tf_model|flax_model|diffusion_pytorch_model|consolidated)"
    r"(\.fp16|\.bf16)?(-\d+-of-\d+)?\.(safetensors|bin|h5|msgpack)(\.index\.json)?"
    r"|model_index\.json|consolidated\.\d+\.(pth|safetensors)|.*\.gguf"
)
# As the Trainer names them; ours are set aside under the second name.
_CHECKPOINT = re.compile(r"(broken-)?checkpoint-\d+")
# Files of a training state beside an adapter; diffusers skips the same words when it guesses.
_NOT_WEIGHTS = re.compile(r"(optimizer|scheduler|random_states|training_args|scaler)\b.*")


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """The adapters of one directory.

    Attributes
    ----------
    weights : tuple of str
        Names of the weights files, one per adapter, in the order of their names.
    config : bool
        Whether adapter_config.json belongs to these weights.
    has_config : bool
        Whether there is an adapter_config.json at all.
    alternatives : tuple of str
        The same weights in another format.
    named_files : bool
        The files carry the names of the adapters (kohya), the directory does not.
    """

    weights: tuple[str, ...] = ()
    config: bool = False
    has_config: bool = False
    alternatives: tuple[str, ...] = ()
    named_files: bool = False


class AdapterLocation(msgspec.Struct, frozen=True, kw_only=True):
    """Where one adapter lies.

    Attributes
    ----------
    name : str
        What tells it from its neighbours: the path below the directory that was named.
    weights : Path
        The file to read. It may be missing in a directory among several, whose config is there;
        opening it then says so.
    config : Path or None
        The adapter_config.json that was saved with these weights.
    alternatives : tuple of Path
        The same weights in another format beside them; not read.
    source : str
        What the user named: a path, or `org/name@commit`.
    """

    name: str
    weights: Path
    config: Path | None = None
    alternatives: tuple[Path, ...] = ()
    source: str


def listing_of(names: Collection[str]) -> Listing:
    """What adapters the files of a directory make.

    Parameters
    ----------
    names : collection of str
        File names without their directory.

    Examples
    --------
    >>> listing_of(["adapter_config.json", "adapter_model.safetensors", "README.md"]).weights
    ('adapter_model.safetensors',)
    >>> listing_of(["style-000002.safetensors", "style.safetensors"]).named_files
    True
    """
    has_config = CONFIG in names
    for known in (PEFT_WEIGHTS, DIFFUSERS_WEIGHTS):
        present = tuple(name for name in known if name in names)
        if present:
            return Listing(
                weights=present[:1],
                alternatives=present[1:],
                config=has_config and known is PEFT_WEIGHTS,
                has_config=has_config,
            )
    if has_config:
        return Listing(has_config=True)
    files = tuple(sorted(name for name in names if _may_be_adapter(name)))
    return Listing(weights=files, named_files=len(files) > 1)


def locate(directory: Path, names: Listing, *, name: str, source: str) -> list[AdapterLocation]:
    """The adapters that a listing describes, as locations in `directory`."""
    config = directory / CONFIG if names.config else None
    return [
        AdapterLocation(
            name=name if not names.named_files else _join(name, Path(file).stem),
            weights=directory / file,
            config=config,
            alternatives=tuple(directory / other for other in names.alternatives),
            source=source if not names.named_files else _join(source, file),
        )
        for file in names.weights
    ]


def no_weights(directory: Path | str) -> AdapterNotFoundError:
    """The error for a config whose weights are not there."""
    lacks = f"has {CONFIG} but neither {PEFT_WEIGHTS[0]} nor {PEFT_WEIGHTS[1]}"
    place = Path(directory)
    if _CHECKPOINT.fullmatch(place.name):
        return AdapterNotFoundError(
            f"{directory} is a checkpoint whose save was not finished: it {lacks}",
            remedy="Take another of its run; which are whole says: "
            f"gradience checkpoints ls {place.parent}",
        )
    return AdapterNotFoundError(
        f"{directory} {lacks}",
        remedy="Save the weights with model.save_pretrained(...), or finish the download.",
    )


def full_model_files(names: Collection[str]) -> list[str]:
    """The files that only a full model has, sorted."""
    return sorted(name for name in names if _FULL_MODEL.fullmatch(name))


def _join(left: str, right: str) -> str:
    return f"{left}/{right}" if left not in ("", ".") else right


def _may_be_adapter(name: str) -> bool:
    return (
        name.endswith(".safetensors")
        and not name.startswith(".")
        and not _FULL_MODEL.fullmatch(name)
        and not _NOT_WEIGHTS.match(name)
    )
