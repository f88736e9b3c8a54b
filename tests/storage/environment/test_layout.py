"""The layouts that users were promised, to the letter."""

from pathlib import Path

import pytest

from gradience.errors import UsageError
from gradience.storage.environment.layout import Layout, layout
from gradience.storage.environment.platforms import PLATFORMS
from gradience.storage.environment.transfer import Client, Transfer, transfer

NO_SWITCH = Transfer(switches=(), reason="nothing to switch")


def make_layout(name: str, root: str, local: str = "/h/.cache/gradience") -> Layout:
    return layout(
        PLATFORMS[name],
        Path(root),
        local=Path(local),
        token=Path("/h/.cache/huggingface/token"),
        transfer=NO_SWITCH,
    )


PROMISED = {
    ("runpod", "/workspace"): {
        "HF_HOME": "/workspace/hf_cache/hf_home",
        "HF_HUB_CACHE": "/workspace/hf_cache/hub",
        "HF_DATASETS_CACHE": "/workspace/hf_cache/datasets",
        "TORCH_HOME": "/workspace/torch_cache",
        "GRADIENCE_CACHE_DIR": "/workspace/gradience_cache",
    },
    ("local", "/h/.cache/gradience"): {
        "HF_HOME": "/h/.cache/gradience/hf_home",
        "HF_HUB_CACHE": "/h/.cache/gradience/hub",
        "HF_DATASETS_CACHE": "/h/.cache/gradience/datasets",
        "TORCH_HOME": "/h/.cache/gradience/torch",
        "GRADIENCE_CACHE_DIR": "/h/.cache/gradience",
    },
    ("docker", "/app/cache"): {
        "HF_HOME": "/app/cache/hf_home",
        "HF_HUB_CACHE": "/app/cache/hub",
        "HF_DATASETS_CACHE": "/app/cache/datasets",
        "TORCH_HOME": "/app/cache/torch",
        "GRADIENCE_CACHE_DIR": "/app/cache/gradience",
    },
}


@pytest.mark.parametrize("place", list(PROMISED), ids=str)
def test_the_promised_places_are_kept(place: tuple[str, str]) -> None:
    values = make_layout(*place).values
    assert {name: values[name] for name in PROMISED[place]} == PROMISED[place]


def test_weights_are_on_the_volume_and_compile_caches_on_the_local_disk() -> None:
    values = make_layout("runpod", "/workspace").values
    on_volume = {n for n, v in values.items() if v.startswith("/workspace/")}
    assert on_volume >= {"HF_HUB_CACHE", "HF_XET_CACHE", "WANDB_DATA_DIR", "WANDB_CACHE_DIR"}
    assert {n for n, v in values.items() if v.startswith("/h/.cache/gradience/")} == {
        "TORCHINDUCTOR_CACHE_DIR",
        "TRITON_CACHE_DIR",
        "TORCH_EXTENSIONS_DIR",
        "TMPDIR",
    }
    assert values["HF_TOKEN_PATH"] == "/h/.cache/huggingface/token"


def test_the_token_is_not_made_a_directory() -> None:
    made = make_layout("runpod", "/workspace")
    assert "/h/.cache/huggingface/token" not in made.directories
    assert len(made.directories) == len(set(made.directories))


def test_a_temporary_directory_leaves_room_for_sockets() -> None:
    setting = make_layout("local", "/x", local="/" + "long/" * 20).settings
    (temporary,) = [s for s in setting if s.name == "TMPDIR"]
    assert temporary.value == "/tmp"
    assert "too long" in temporary.reason


@pytest.mark.parametrize(
    "root", ["relative", "", "/a\nb", "/a\0b", "/a\x1bb", "/a\u2028b", "/\udc80"]
)
def test_a_root_that_no_format_can_carry_is_refused(root: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_layout("local", root)
    assert caught.value.remedy


HUB_0, HUB_1 = Client(hub="0.36.2"), Client(hub="2.4.0", xet=True)


@pytest.mark.parametrize(
    ("choice", "client", "switches", "said", "hint"),
    [
        (
            "plain",
            HUB_1,
            {"HF_HUB_DISABLE_XET": "1", "HF_HUB_ENABLE_HF_TRANSFER": "0"},
            "50 GB",
            "",
        ),
        ("fast", HUB_1, {"HF_XET_HIGH_PERFORMANCE": "1"}, "ignores hf_transfer", ""),
        (
            "fast",
            Client(hub="2.4.0"),
            {"HF_XET_HIGH_PERFORMANCE": "1"},
            "2.4.0",
            "pip install hf_xet",
        ),
        ("fast", HUB_0, {}, "not installed", "pip install hf_transfer"),
        (
            "fast",
            Client(hub="0.36.2", hf_transfer=True),
            {"HF_HUB_ENABLE_HF_TRANSFER": "1"},
            "hf_transfer",
            "",
        ),
        ("fast", Client(), {}, "not installed", ""),
        ("auto", HUB_1, {}, "Xet stays on", ""),
        ("auto", HUB_0, {}, "plain HTTP by itself", ""),
        ("auto", Client(hub="0.34.0", xet=True), {}, "Xet stays on", ""),
        ("auto", Client(hub="2.4.0"), {}, "50 GB", "pip install hf_xet"),
        (
            "auto",
            Client(hub="0.36.2", hf_transfer=True),
            {"HF_HUB_ENABLE_HF_TRANSFER": "1"},
            "",
            "",
        ),
    ],
    ids=str,
)
def test_the_installed_client_decides_how_files_come_down(
    choice: str, client: Client, switches: dict[str, str], said: str, hint: str
) -> None:
    chosen = transfer(choice, client)  # type: ignore[arg-type]
    assert dict(chosen.switches) == switches
    assert said in chosen.reason
    assert chosen.hint == hint
