"""Where the files of a base model lie: a directory, a part of an installed package, the Hub cache.

No torch: the fingerprint of a base, its norms and its loading all start from this directory.
"""

from importlib.util import find_spec
from pathlib import Path

from gradience.bench.settings import ModelSettings
from gradience.errors import BaseModelError
from gradience.tensors.remote.session import no_answer, said

PACKAGE = "package:"


def base_directory(model: ModelSettings) -> Path:
    """The directory with the files of a base model; of the Hub, downloaded first if need be.

    `HF_HUB_OFFLINE` is respected, as by every client of the Hub.

    Raises
    ------
    BaseModelError
        If there is no such directory or package, or the Hub does not give it.
    """
    if model.id.startswith(PACKAGE):
        return _in_package(model.id)
    path = Path(model.id).expanduser()
    if path.is_dir():
        return path
    return _from_hub(model)


def _in_package(name: str) -> Path:
    """`package:NAME/sub/dir`; the package is found, not imported."""
    package, _, below = name.removeprefix(PACKAGE).partition("/")
    spec = find_spec(package) if package.isidentifier() else None
    places = [] if spec is None else list(spec.submodule_search_locations or ())
    for place in places:
        if (Path(place) / below).is_dir():
            return Path(place) / below
    reason = f"has no directory {below!r}" if places else "is not installed"
    raise BaseModelError(
        f"{name}: the package {package!r} {reason}",
        remedy="Install the package, or name a directory or a Hub id.",
    )


def _from_hub(model: ModelSettings) -> Path:
    # Imported here: a fifth of a second that a local directory need not pay.
    from huggingface_hub import snapshot_download  # noqa: PLC0415

    named = model.id if model.revision is None else f"{model.id}@{model.revision}"
    try:
        return Path(
            snapshot_download(
                model.id,
                revision=model.revision,
                # The formats of other frameworks double the bytes.
                ignore_patterns=["*.h5", "*.msgpack", "*.onnx", "onnx/*", "*.gguf", "original/*"],
            )
        )
    except no_answer() as error:
        raise BaseModelError(
            f"{named} is no directory here, and the Hub does not give it: {said(error)}",
            remedy="Correct `model.id`; offline, download it first with `hf download`.",
        ) from error
