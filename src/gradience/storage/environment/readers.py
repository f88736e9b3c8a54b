"""Where each library would put its bytes, given an environment.

Every library expands its variables by rules of its own: the hub expands `~` and `$VAR`, `datasets`
expands `~` in HF_HOME and nothing in HF_DATASETS_CACHE, Xet's Rust code expands `~` and never
`$VAR`. One value can so name three places. The rules below follow the sources line by line, traps
included; a test runs the real libraries over a grid of environments and compares.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from posixpath import dirname, join, normpath

DEFAULT = "default"
_TEMPORARY = ("TMPDIR", "TEMP", "TMP")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """Where one reader would put its bytes.

    Attributes
    ----------
    reader : str
        The library that reads it.
    value : str
        The path as the library holds it; may be relative, or carry a literal `~` or `$VAR`.
    path : Path
        The same below the working directory: where the bytes land.
    decided_by : str
        The variable that decided, or `default`.
    traps : tuple of str
        `literal_home`, `literal_variable`, `empty`, `relative`: why it is not what was meant.
    """

    reader: str
    value: str
    path: Path
    decided_by: str
    traps: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What the defaults of some libraries depend on beside the environment.

    Attributes
    ----------
    cwd : Path
        Relative values land below it.
    user : str
        Login name; part of inductor's default.
    system : str
        `linux` or `darwin`, as `sys.platform` says.
    build : str
        Python and accelerator in the name of torch's extension directory.
    """

    cwd: Path = Path()
    user: str = "user"
    system: str = "linux"
    build: str = "py311_cpu"


def resolve(
    environ: Mapping[str, str], home: Path, *, host: Host | None = None
) -> Mapping[str, Resolved]:
    """Where each library would put its bytes if a process started with this environment.

    Parameters
    ----------
    environ : mapping of str to str
    home : Path
        What `~` stands for.
    host : Host, optional
        The defaults of a Linux machine, relative to `.`, when left out.

    Returns
    -------
    mapping of str to Resolved
        By place: `hub`, `hub_token`, `xet`, `datasets`, `torch`, ... `gradience` is absent when
        its variable is one that Gradience itself refuses.

    Examples
    --------
    >>> places = resolve({"HF_HOME": "$SCRATCH/hf", "SCRATCH": "/s"}, Path("/home/me"))
    >>> str(places["hub"].path), str(places["datasets"].path)
    ('/s/hf/hub', '$SCRATCH/hf/datasets')
    """
    reading = _Reading(environ, home, host or Host())
    places: dict[str, Resolved] = {}
    for rule in _RULES:
        rule(reading, places)
    return places


def undecided(
    values: Mapping[str, str], environ: Mapping[str, str], home: Path, *, host: Host | None = None
) -> dict[str, str]:
    """Of these variables, those that would move no place for which an environment decides already.

    Parameters
    ----------
    values : mapping of str to str
        Variables that may be set.

    Examples
    --------
    >>> values = {"HF_HUB_CACHE": "/a/hub", "TORCH_HOME": "/a/torch"}
    >>> undecided(values, {"HF_HOME": "/mine"}, Path("/home/me"))
    {'TORCH_HOME': '/a/torch'}
    """
    now = resolve(environ, home, host=host)
    found = {}
    for name, value in values.items():
        then = resolve({**environ, name: value}, home, host=host)
        moved = [now[p] for p in now.keys() & then.keys() if then[p].decided_by == name]
        if name not in environ and all(place.decided_by == DEFAULT for place in moved):
            found[name] = value
    return found


def expand_home(value: str, home: str) -> str:
    """`os.path.expanduser` for `~` alone; `~name` stays, as it needs the user database."""
    if value == "~" or value.startswith("~/"):
        return (home.rstrip("/") + value[1:]) or "/"
    return value


def expand_variables(value: str, environ: Mapping[str, str]) -> str:
    """`os.path.expandvars`: an unknown name stays, a value is not expanded again."""
    return re.sub(
        r"\$(?:(\w+)|\{([^}]*)\})",
        lambda match: environ.get(match[1] or match[2] or "", match[0]),
        value,
        flags=re.ASCII,
    )


class _Reading:
    """An environment being read by the rules of one library after another."""

    def __init__(self, environ: Mapping[str, str], home: Path, host: Host) -> None:
        self.environ = environ
        self.home = str(home)
        self.host = host

    def first(self, *names: str, default: str) -> tuple[str, str]:
        """The value of the first name that is set, empty or not, and who decided."""
        for name in names:
            if name in self.environ:
                return self.environ[name], name
        return default, DEFAULT

    def user(self, value: str) -> str:
        """Expand `~`."""
        return expand_home(value, self.home)

    def both(self, value: str) -> str:
        """Expand `~`, then `$VAR`, as the hub does."""
        return expand_variables(self.user(value), self.environ)

    def huggingface(self, default_cache: str) -> tuple[str, str]:
        """HF_HOME before any expansion; with `XDG_CACHE_HOME`, even an empty one, below it."""
        cache, by = self.first("XDG_CACHE_HOME", default=default_cache)
        value, decided = self.first("HF_HOME", default=join(cache, "huggingface"))
        return value, by if decided == DEFAULT else decided

    def at(self, reader: str, value: str, by: str) -> Resolved:
        """A finished answer."""
        return Resolved(
            reader=reader,
            value=value,
            path=self.host.cwd / value,
            decided_by=by,
            traps=tuple(self._traps(value, by)),
        )

    def _traps(self, value: str, by: str) -> list[str]:
        found = []
        if by != DEFAULT and self.environ.get(by) == "":
            found.append("empty")
        if value.startswith("~"):
            found.append("literal_home")
        if "$" in value:
            found.append("literal_variable")
        if not value.startswith("/"):
            found.append("relative")
        return found


def _hub(read: _Reading, places: dict[str, Resolved]) -> None:
    """huggingface_hub/constants.py: `~` and `$VAR` are expanded, but for HF_XET_CACHE."""
    raw, by = read.huggingface(join(read.home, ".cache"))
    home = read.both(raw)
    hub, hub_by = read.first("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", default=join(home, "hub"))
    assets, assets_by = read.first(
        "HF_ASSETS_CACHE", "HUGGINGFACE_ASSETS_CACHE", default=join(home, "assets")
    )
    token, token_by = read.first("HF_TOKEN_PATH", default=join(home, "token"))
    xet, xet_by = read.first("HF_XET_CACHE", default=join(home, "xet"))
    token = read.both(token)
    name = "huggingface_hub"
    places["hf_home"] = read.at(name, home, by)
    places["hub"] = read.at(name, read.both(hub), _or(hub_by, by))
    places["assets"] = read.at(name, read.both(assets), _or(assets_by, by))
    places["hub_token"] = read.at(name, token, _or(token_by, by))
    places["hub_stored_tokens"] = read.at(
        name, join(dirname(token), "stored_tokens"), _or(token_by, by)
    )
    places["xet_constant"] = read.at(name, xet, _or(xet_by, by))
    # transformers and diffusers take the hub's expanded HF_HOME, and their own variable as it is.
    modules, modules_by = read.first("HF_MODULES_CACHE", default=join(home, "modules"))
    places["modules"] = read.at("transformers", modules, _or(modules_by, by))


def _xet(read: _Reading, places: dict[str, Resolved]) -> None:
    """hf_xet (Rust), which decides where bytes go: `~` is expanded, `$VAR` is not."""
    raw, by = read.huggingface("~/.cache")
    value, own = read.first("HF_XET_CACHE", default=join(raw, "xet"))
    places["xet"] = read.at("hf_xet", read.user(value), _or(own, by))


def _datasets(read: _Reading, places: dict[str, Resolved]) -> None:
    """datasets/config.py: `~` in HF_HOME only; the extracted directory ignores one variable."""
    raw, by = read.huggingface("~/.cache")
    home = read.user(raw)
    cache, cache_by = _as_path(read, "HF_DATASETS_CACHE", join(home, "datasets"), by)
    downloads = join(cache, "downloads")
    extracted = join(downloads, "extracted")
    modules, modules_by = _as_path(read, "HF_MODULES_CACHE", join(home, "modules"), by)
    got, got_by = _as_path(read, "HF_DATASETS_DOWNLOADED_DATASETS_PATH", downloads, cache_by)
    out, out_by = _as_path(read, "HF_DATASETS_EXTRACTED_DATASETS_PATH", extracted, cache_by)
    places["datasets"] = read.at("datasets", cache, cache_by)
    places["datasets_downloads"] = read.at("datasets", got, got_by)
    places["datasets_extracted"] = read.at("datasets", out, out_by)
    places["datasets_modules"] = read.at("datasets", modules, modules_by)


def _evaluate(read: _Reading, places: dict[str, Resolved]) -> None:
    """evaluate/config.py and accelerate's config: as datasets."""
    raw, by = read.huggingface("~/.cache")
    home = read.user(raw)
    for place, name in (("evaluate", "HF_EVALUATE_CACHE"), ("metrics", "HF_METRICS_CACHE")):
        value, own = _as_path(read, name, join(home, place), by)
        places[place] = read.at("evaluate", value, own)
    places["accelerate"] = read.at("accelerate", join(home, "accelerate"), by)


def _torch(read: _Reading, places: dict[str, Resolved]) -> None:
    """torch.hub (`~`), torch.utils.cpp_extension, and inductor (which makes a path absolute)."""
    cache, by = read.first("XDG_CACHE_HOME", default="~/.cache")
    torch, own = read.first("TORCH_HOME", default=join(cache, "torch"))
    home = read.user(torch)
    places["torch"] = read.at("torch", home, _or(own, by))
    places["torch_hub"] = read.at("torch", join(home, "hub"), _or(own, by))
    extensions, ext_by = read.first("TORCH_EXTENSIONS_DIR", default="")
    if ext_by == DEFAULT:
        extensions, ext_by = _extensions(read)
    places["torch_extensions"] = read.at("torch", extensions, ext_by)
    temporary, temp_by = _temporary(read)
    default = join(temporary, "torchinductor_" + re.sub(r'[\\/:*?"<>|]', "_", read.host.user))
    inductor, ind_by = read.first("TORCHINDUCTOR_CACHE_DIR", default=default)
    inductor = normpath(join(str(read.host.cwd), inductor))
    places["tmp"] = read.at("tempfile", temporary, temp_by)
    places["inductor"] = read.at("torch", inductor, _or(ind_by, temp_by))
    triton, tri_by = read.first("TRITON_CACHE_DIR", default=join(inductor, "triton"))
    places["triton_inductor"] = read.at("torch", triton, _or(tri_by, _or(ind_by, temp_by)))


def _extensions(read: _Reading) -> tuple[str, str]:
    """The default of `torch.utils.cpp_extension`: torch._appdirs.user_cache_dir."""
    if read.host.system == "darwin":
        return join(read.home, "Library/Caches/torch_extensions", read.host.build), DEFAULT
    cache, by = read.first("XDG_CACHE_HOME", default=join(read.home, ".cache"))
    root = normpath(join(str(read.host.cwd), cache, "torch_extensions"))
    return join(root, read.host.build), by


def _temporary(read: _Reading) -> tuple[str, str]:
    """tempfile: the first of three that is not empty, taken to be there and writable."""
    for name in _TEMPORARY:
        if value := read.environ.get(name):
            return normpath(join(str(read.host.cwd), value)), name
    return "/tmp", DEFAULT


def _triton(read: _Reading, places: dict[str, Resolved]) -> None:
    """triton/knobs.py: nothing is expanded."""
    home, by = read.first("TRITON_HOME", default=read.home)
    value, own = read.first("TRITON_CACHE_DIR", default=join(home, ".triton", "cache"))
    places["triton"] = read.at("triton", value, _or(own, by))


def _wandb(read: _Reading, places: dict[str, Resolved]) -> None:
    """wandb/env.py: four variables with four defaults, on three disks."""
    cache, cache_by = _platformdirs(read, "XDG_CACHE_HOME", ".cache", "Library/Caches")
    data, data_by = _platformdirs(
        read, "XDG_DATA_HOME", ".local/share", "Library/Application Support"
    )
    value, own = read.first("WANDB_CACHE_DIR", default=join(cache, "wandb"))
    places["wandb_cache"] = read.at("wandb", normpath(value), _or(own, cache_by))
    value, own = read.first("WANDB_DATA_DIR", default=join(data, "wandb"))
    staging = read.user(join(value, "artifacts", "staging"))
    places["wandb_data"] = read.at("wandb", value, _or(own, data_by))
    places["wandb_staging"] = read.at("wandb", staging, _or(own, data_by))
    # An empty WANDB_DIR is the working directory, as when it is unset.
    value, own = read.environ.get("WANDB_DIR") or ".", "WANDB_DIR"
    runs = read.user(join(value, "wandb"))
    places["wandb_runs"] = read.at("wandb", runs, own if read.environ.get(own) else DEFAULT)
    value, own = read.first("WANDB_ARTIFACT_DIR", default="./artifacts")
    artifacts = normpath(join(str(read.host.cwd), value))
    places["wandb_artifacts"] = read.at("wandb", artifacts, own)


def _packages(read: _Reading, places: dict[str, Resolved]) -> None:
    """pip (an empty value counts as unset, `~` is expanded) and uv."""
    # pip carries a platformdirs of its own, which takes a relative XDG directory.
    cache, by = read.environ.get("XDG_CACHE_HOME", ""), "XDG_CACHE_HOME"
    if read.host.system == "darwin":
        cache, by = join(read.home, "Library/Caches"), DEFAULT
    elif not cache.strip():
        cache, by = join(read.home, ".cache"), DEFAULT
    value, own = read.environ.get("PIP_CACHE_DIR") or join(cache, "pip"), "PIP_CACHE_DIR"
    own = own if read.environ.get(own) else by
    places["pip"] = read.at("pip", read.user(value), own)
    xdg, by = read.first("XDG_CACHE_HOME", default=join(read.home, ".cache"))
    value, own = read.first("UV_CACHE_DIR", default=join(xdg, "uv"))
    places["uv"] = read.at("uv", value, _or(own, by))


def _platformdirs(read: _Reading, name: str, linux: str, mac: str) -> tuple[str, str]:
    """platformdirs 4: an XDG variable counts where it is absolute, on macOS too."""
    value = read.environ.get(name, "")
    if value.startswith("/"):
        return value, name
    return join(read.home, mac if read.host.system == "darwin" else linux), DEFAULT


def _gradience(read: _Reading, places: dict[str, Resolved]) -> None:
    """Gradience itself: `~` and `$VAR`, absolute, or refused."""
    own = "GRADIENCE_CACHE_DIR"
    value = read.both(read.environ.get(own, "").strip())
    if not value:
        value, own = join(read.home, ".cache", "gradience"), DEFAULT
    if value.startswith("/") and "$" not in value:
        places["gradience"] = read.at("gradience", str(Path(value)), own)


def _as_path(read: _Reading, name: str, default: str, by: str) -> tuple[str, str]:
    """`Path(os.getenv(name, default))`: nothing expanded, the empty string becomes `.`."""
    value, own = read.first(name, default=default)
    return str(Path(value)), _or(own, by)


def _or(own: str, inherited: str) -> str:
    return inherited if own == DEFAULT else own


_RULES: tuple[Callable[[_Reading, dict[str, Resolved]], None], ...] = (
    _hub,
    _xet,
    _datasets,
    _evaluate,
    _torch,
    _triton,
    _wandb,
    _packages,
    _gradience,
)
