"""From a path to a smaller directory, by the library and by the command."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from gradience.adapter.read import open_adapter
from gradience.audit.run import audit_lora_peft_dir
from gradience.compress import rewrite
from gradience.compress.report import page
from gradience.compress.run import Wish, compress
from gradience.errors import UnsupportedAdapterError, UsageError

DEMO = Path(__file__).parents[2] / "examples" / "demo_adapter"


def gradience(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gradience", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "120"},
    )


@pytest.mark.parametrize(
    "wish",
    [
        Wish(rank=3),
        Wish(energy=0.9),
        Wish(energy=0.95, rule="uniform_max"),
        Wish(dtype="bf16"),
        Wish(rank=2, dtype="bf16"),
    ],
    ids=Wish.words,
)
def test_a_dry_run_says_what_the_real_one_does_and_writes_nothing(
    tmp_path: Path, wish: Wish
) -> None:
    planned = compress(DEMO, tmp_path / "new", wish, dry_run=True)
    assert not (tmp_path / "new").exists()
    done = compress(DEMO, tmp_path / "new", wish)
    for field in ("ranks", "nbytes", "factor_bytes", "relative_error", "predicted"):
        assert getattr(done, field) == getattr(planned, field)
    assert (tmp_path / "new" / "adapter_model.safetensors").stat().st_size == done.nbytes
    new, old = open_adapter(tmp_path / "new"), open_adapter(DEMO)
    assert {x.label: x.rank for x in new.layers} == done.ranks
    assert [x.scale for x in new.layers] == [x.scale for x in old.layers]
    assert done.relative_error == rewrite.change_error(old, new)
    assert done.nbytes < done.nbytes_before


def test_the_error_is_the_one_that_the_audit_predicted(tmp_path: Path) -> None:
    suggestions = audit_lora_peft_dir(DEMO, use_cache=False).suggestions
    for suggestion in suggestions:
        wish = Wish(energy=suggestion.energy, rule=suggestion.rule)
        done = compress(DEMO, tmp_path / "new", wish, dry_run=True)
        assert done.predicted_error == pytest.approx(suggestion.relative_error, rel=1e-9)
        # Stored in float32: the rounding of the factors, and no more.
        assert done.relative_error == pytest.approx(suggestion.relative_error, rel=1e-5)
        assert max(done.predicted.values()) == pytest.approx(suggestion.worst_error, rel=1e-9)
        assert done.factor_bytes == suggestion.nbytes


def test_an_alpha_that_was_guessed_is_told_before_the_cut_writes_it_down(tmp_path: Path) -> None:
    config, weights = tmp_path / "old/adapter_config.json", "adapter_model.safetensors"
    config.parent.mkdir()
    shutil.copy(DEMO / weights, config.parent)
    config.write_text((DEMO / config.name).read_text().replace('"lora_alpha"', '"lora_alhpa"'))
    told: list[str] = []
    compress(tmp_path / "old", tmp_path / "new", Wish(rank=2), notice=told.append)
    assert [line.rpartition(" ")[2] for line in told] == [
        "[config_key_misspelt]",
        "[alpha_missing]",
    ]
    told.clear()
    compress(DEMO, tmp_path / "sound", Wish(rank=2), notice=told.append)
    assert told == []


@pytest.mark.parametrize(("zeroed", "code"), [("lora_B", "untouched"), ("lora_", "zero_filled")])
def test_an_adapter_that_changes_nothing_is_told_before_it_is_cut(
    tmp_path: Path, zeroed: str, code: str
) -> None:
    (tmp_path / "old").mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(DEMO / name, tmp_path / "old")
    weights = tmp_path / "old/adapter_model.safetensors"
    tensors = load_file(weights)
    save_file({n: t * (zeroed not in n) for n, t in tensors.items()}, weights)
    done = gradience("compress", tmp_path / "old", "--out", tmp_path / "new", "--rank", 3)
    assert done.returncode == 0
    assert f"[{code}]" in done.stderr
    assert done.stderr.startswith("error: ")


def test_a_directory_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        compress(DEMO, tmp_path, Wish(rank=2))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    "wish",
    [
        Wish(),
        Wish(rank=2, energy=0.9),
        Wish(dtype="fp16"),  # type: ignore[arg-type]
        Wish(energy=0.9, rule="uniform_mean"),  # type: ignore[arg-type]
    ],
)
def test_a_wish_that_says_nothing_two_things_or_what_is_not_known_is_refused(
    tmp_path: Path, wish: Wish
) -> None:
    with pytest.raises(UsageError):
        compress(DEMO, tmp_path / "new", wish)


def test_a_change_too_large_for_the_type_of_its_factors_is_refused(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    shutil.copy(DEMO / "adapter_config.json", old)
    weights = old / "adapter_model.safetensors"
    tensors = load_file(DEMO / "adapter_model.safetensors")
    part = "layer.0.attention.self.query.lora_"
    huge = {n: t * 0 + t.dtype.type(3e38) for n, t in tensors.items() if part in n}
    save_file(tensors | huge, weights)
    with pytest.raises(UnsupportedAdapterError, match=r"self\.query: its change is too large for"):
        compress(old, tmp_path / "new", Wish(rank=2))
    assert not (tmp_path / "new").exists()


def test_the_directory_may_be_named_as_text(tmp_path: Path) -> None:
    done = compress(DEMO, str(tmp_path / "new"), Wish(rank=2))
    assert done.output == str(tmp_path / "new")
    assert (tmp_path / "new" / "adapter_config.json").is_file()


def test_the_ranks_before_are_shown_as_those_after(tmp_path: Path) -> None:
    first = compress(DEMO, tmp_path / "new", Wish(energy=0.9))
    low, high = min(first.ranks.values()), max(first.ranks.values())
    again = compress(tmp_path / "new", tmp_path / "newer", Wish(dtype="bf16"))
    text = str(page(again, top=0)[1])
    assert low < high
    assert f"rank {low} to {high} -> {low} to {high}" in text


def test_modules_that_lose_are_named_where_the_largest_rank_stays(tmp_path: Path) -> None:
    done = compress(DEMO, tmp_path / "new", Wish(energy=0.99), dry_run=True)
    assert max(done.ranks.values()) == max(done.ranks_before.values())
    assert "Modules that lose most" in str(page(done, top=1))


@pytest.mark.parametrize("wish", [Wish(dtype="bf16"), Wish(energy=0.9)])
def test_what_makes_nothing_smaller_says_so_of_what_was_asked(tmp_path: Path, wish: Wish) -> None:
    least = compress(DEMO, tmp_path / "least", Wish(rank=1, dtype="bf16"))
    again = compress(least.output, tmp_path / "again", wish, dry_run=True)
    said = f"Nothing is smaller: every module meets {wish.words()} already."
    assert said in str(page(again, top=0))


def test_the_command_shows_ranks_bytes_and_the_error(tmp_path: Path) -> None:
    done = gradience("compress", DEMO, "--out", tmp_path / "new", "--rank", 3)
    assert done.returncode == 0, done.stderr
    assert "18 modules, rank 8 -> 3" in done.stdout
    assert "error of dW as stored: 23%" in done.stdout
    assert (tmp_path / "new" / "adapter_config.json").is_file()
    again = gradience("compress", DEMO, "--out", tmp_path / "new", "--rank", 3)
    assert again.returncode == 2
    assert "is there already" in again.stderr


def test_json_is_the_artifact_and_nothing_else(tmp_path: Path) -> None:
    out = ("--out", tmp_path / "new")
    done = gradience("compress", DEMO, *out, "--energy", 0.9, "--dry-run", "--json")
    told = json.loads(done.stdout)
    assert told["schema"] == "gradience.compression/v1"
    assert told["content"]["written"] is False
    assert not (tmp_path / "new").exists()


def test_a_command_without_a_size_is_refused(tmp_path: Path) -> None:
    done = gradience("compress", DEMO, "--out", tmp_path / "new")
    assert done.returncode == 2
    assert "hint: Give --rank N" in done.stderr
