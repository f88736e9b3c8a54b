"""`gradience audit` as a user meets it: a process, two streams, an exit code."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from gradience import artifacts
from gradience.audit.records import SCHEMA, SET_SCHEMA, AdapterAudit, AuditSet

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "examples" / "demo_adapter"
CONFIG = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}


def write_adapter(path: Path, *, seed: int = 0, trained: bool = True, blocks: int = 3) -> Path:
    rng = np.random.default_rng(seed)
    tensors = {}
    for i in range(blocks):
        for part in ("q_proj", "v_proj"):
            stem = f"base_model.model.model.layers.{i}.self_attn.{part}"
            tensors[f"{stem}.lora_A.weight"] = rng.standard_normal((4, 32)).astype(np.float32)
            tensors[f"{stem}.lora_B.weight"] = (
                rng.standard_normal((32, 4)).astype(np.float32) * trained
            )
    path.mkdir(parents=True)
    save_file(tensors, path / "adapter_model.safetensors")
    (path / "adapter_config.json").write_text(json.dumps(CONFIG))
    return path


@pytest.fixture
def gradience(tmp_path: Path):
    """Run the command line with a cache of its own."""

    def run(*args: object, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "gradience", *map(str, args)],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env={**os.environ, "GRADIENCE_CACHE_DIR": str(tmp_path / "cache"), **environ},
        )

    return run


def test_a_page_has_verdict_types_modules_and_suggestions(gradience, tmp_path: Path) -> None:
    done = gradience("audit", write_adapter(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    for text in ("HEALTHY", "By module type", "self_attn.q_proj", "Truncations", "No base model"):
        assert text in done.stdout
    assert done.stderr == ""


def test_json_is_the_artifact_and_nothing_else(gradience, tmp_path: Path) -> None:
    done = gradience("audit", write_adapter(tmp_path / "run"), "--json")
    audit = artifacts.decode(done.stdout.encode(), SCHEMA, AdapterAudit, source="stdout")
    assert audit.verdict == "healthy"
    assert len(audit.layers) == 6
    assert "NaN" not in done.stdout


def test_output_writes_what_json_prints(gradience, tmp_path: Path) -> None:
    done = gradience("audit", write_adapter(tmp_path / "run"), "--output", "audit.json")
    assert done.returncode == 0
    assert "wrote audit.json" in done.stderr
    data = (tmp_path / "audit.json").read_bytes()
    assert artifacts.decode(data, SCHEMA, AdapterAudit, source="file").max_rank == 4


def test_an_output_that_cannot_be_written_exits_5(gradience, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = gradience("audit", write_adapter(tmp_path / "run"), "--output", "file/audit.json")
    assert done.returncode == 5
    assert "Traceback" not in done.stderr


def test_several_adapters_are_compared_and_a_broken_one_is_named(gradience, tmp_path: Path) -> None:
    write_adapter(tmp_path / "runs" / "a", seed=1)
    write_adapter(tmp_path / "runs" / "b", seed=2)
    broken = write_adapter(tmp_path / "runs" / "c")
    (broken / "adapter_model.safetensors").write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n"
    )
    done = gradience("audit", tmp_path / "runs")
    assert done.returncode == 3
    assert "2 adapters" in done.stdout
    assert "Size unchecked where healthy: no base model." in " ".join(done.stdout.split())
    assert "lfs_pointer" in done.stdout
    many = gradience("audit", tmp_path / "runs", "--json")
    found = artifacts.decode(many.stdout.encode(), SET_SCHEMA, AuditSet, source="stdout")
    assert len(found.audits) == 2
    assert [f.code for f in found.failures] == ["lfs_pointer"]


@pytest.mark.parametrize(
    ("fail_on", "code"),
    [("error", 1), ("untouched", 1), ("warning", 1), ("not_finite", 0), ("never", 0)],
)
def test_fail_on_sets_the_exit_code(gradience, tmp_path: Path, fail_on: str, code: int) -> None:
    untrained = write_adapter(tmp_path / "run", trained=False)
    done = gradience("audit", untrained, "--fail-on", fail_on)
    assert done.returncode == code
    assert "BROKEN" in done.stdout


def test_a_checkpoint_that_was_cut_off_is_not_called_an_adapter_without_weights(
    gradience, tmp_path: Path
) -> None:
    write_adapter(tmp_path / "run" / "checkpoint-20")
    cut = write_adapter(tmp_path / "run" / "checkpoint-30")
    (cut / "adapter_model.safetensors").unlink()
    done = gradience("audit", "run")
    assert done.returncode == 3
    shown = " ".join(done.stdout.split())
    assert "checkpoint-30 is a checkpoint whose save was not finished" in shown
    assert "gradience checkpoints ls run" in shown


def test_a_mistyped_path_of_a_base_model_is_said_to_be_no_path(gradience, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "run")
    done = gradience("audit", adapter, "--base-model", "models/llma", HF_HUB_OFFLINE="1")
    assert done.returncode == 3
    assert "there is no such file or directory here" in done.stderr


def test_a_typo_in_fail_on_is_a_usage_error(gradience, tmp_path: Path) -> None:
    done = gradience("audit", write_adapter(tmp_path / "run"), "--fail-on", "eror")
    assert done.returncode == 2
    assert "Did you mean error?" in done.stderr


def test_a_missing_path_among_several_stops_none_of_the_others(gradience, tmp_path: Path) -> None:
    good = write_adapter(tmp_path / "good")
    missing = ("audit", good, tmp_path / "nope", tmp_path / "gone")
    many = gradience(*missing, "--json")
    found = artifacts.decode(many.stdout.encode(), SET_SCHEMA, AuditSet, source="stdout")
    assert many.returncode == 3
    assert [a.source for a in found.audits] == [str(good)]
    assert [(Path(f.source).name, f.code) for f in found.failures] == [
        ("nope", "adapter_not_found"),
        ("gone", "adapter_not_found"),
    ]
    table = gradience(*missing)
    assert table.returncode == 3
    assert "1 adapters" not in table.stdout
    assert "nope: there is no such file or directory" in " ".join(table.stdout.split())
    none = gradience("audit", tmp_path / "nope", tmp_path / "gone")
    assert none.returncode == 3
    assert none.stdout.count("adapter_not_found") == 2


def test_a_missing_path_says_so_in_two_lines(gradience) -> None:
    done = gradience("audit", "no-such-run")
    assert done.returncode == 3
    first, second = done.stderr.splitlines()
    assert first.startswith("error: ")
    assert "no-such-run" in first
    assert second.startswith("hint: ")


def test_the_second_audit_is_the_first(gradience, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "run")
    first = json.loads(gradience("audit", adapter, "--json").stdout)["content"]
    assert len(list((tmp_path / "cache" / "audits").glob("*.json"))) == 1
    assert json.loads(gradience("audit", adapter, "--json").stdout)["content"] == first
    bypassed = json.loads(gradience("audit", adapter, "--json", "--no-cache").stdout)["content"]
    assert bypassed == first


def test_a_changed_adapter_is_audited_anew(gradience, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "run")
    before = json.loads(gradience("audit", adapter, "--json").stdout)["content"]
    (adapter / "adapter_config.json").write_text(json.dumps({**CONFIG, "lora_alpha": 16}))
    after = json.loads(gradience("audit", adapter, "--json").stdout)["content"]
    ratio = after["overall"]["spectral_norm"]["max"] / before["overall"]["spectral_norm"]["max"]
    assert ratio == pytest.approx(2)


def test_a_moved_adapter_is_recalled_under_its_new_name(gradience, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "run")
    gradience("audit", adapter)
    moved = adapter.rename(tmp_path / "elsewhere")
    content = json.loads(gradience("audit", moved, "--json").stdout)["content"]
    assert content["source"] == str(moved)
    assert all("elsewhere" in file for file in content["files"])
    assert len(list((tmp_path / "cache" / "audits").glob("*.json"))) == 1


@pytest.mark.parametrize("garbage", [b"", b"{}", b'{"schema": "gradience.audit/v1"}', b"\xff"])
def test_a_corrupt_memory_is_made_anew_and_said(gradience, tmp_path: Path, garbage: bytes) -> None:
    adapter = write_adapter(tmp_path / "run")
    gradience("audit", adapter)
    (entry,) = (tmp_path / "cache" / "audits").glob("*.json")
    entry.write_bytes(garbage)
    content = json.loads(gradience("audit", adapter, "--json").stdout)["content"]
    assert "audit_cache_corrupt" in [f["code"] for f in content["findings"]]
    again = json.loads(gradience("audit", adapter, "--json").stdout)["content"]
    assert "audit_cache_corrupt" not in [f.get("code") for f in again["findings"]]


def test_an_unwritable_cache_does_not_stop_the_audit(gradience, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = gradience(
        "audit",
        write_adapter(tmp_path / "run"),
        "--json",
        GRADIENCE_CACHE_DIR=str(tmp_path / "file" / "cache"),
    )
    assert done.returncode == 0
    content = json.loads(done.stdout)["content"]
    assert "audit_cache_unwritable" in [f["code"] for f in content["findings"]]
    assert len(content["layers"]) == 6


def test_no_torch_is_imported_for_a_safetensors_file(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from gradience.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: code = end.code\n"
        "heavy = {'torch', 'transformers', 'peft', 'scipy', 'pandas'} & set(sys.modules)\n"
        "assert code == 0 and not heavy, (code, heavy)\n"
    )
    adapter = write_adapter(tmp_path / "run")
    done = subprocess.run(
        [sys.executable, "-c", code, "audit", str(adapter), "--no-cache"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_help_imports_neither_numpy_nor_rich() -> None:
    code = (
        "import sys\n"
        "from gradience.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'numpy', 'rich', 'msgspec', 'huggingface_hub'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "audit" in done.stdout


def test_an_unknown_command_names_the_nearest(gradience) -> None:
    done = gradience("audti")
    assert done.returncode == 2
    assert "Did you mean 'audit'?" in done.stderr


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "run", blocks=40)
    command = f'"{sys.executable}" -m gradience audit "{adapter}" --layers --no-cache | head -n 1'
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


EVIL = "\x1b[2J\x1b]52;c;aGk=\x07\x9b31m\u202e"


def test_an_escape_sequence_in_a_file_is_shown_and_not_obeyed(gradience, tmp_path: Path) -> None:
    path = write_adapter(tmp_path / "run")
    stem = f"base_model.model.model.layers.3.{EVIL}\n{'x' * 5000}"
    tensors = {
        f"{stem}.lora_A.weight": np.ones((4, 32), np.float32),
        f"{stem}.lora_B.weight": np.ones((32, 4), np.float32),
    }
    save_file(tensors, path / "adapter_model.safetensors")
    config = {**CONFIG, "base_model_name_or_path": EVIL}
    (path / "adapter_config.json").write_text(json.dumps(config))
    done = gradience("audit", path, "--layers", PYTHONUTF8="1")
    assert done.returncode == 0, done.stderr
    assert "\\x1b[2J" in done.stdout
    assert done.stdout.replace("\n", "").isprintable()
    assert max(map(len, done.stdout.splitlines())) < 1000


def test_an_escape_sequence_in_a_path_is_not_obeyed(gradience, tmp_path: Path) -> None:
    done = gradience("audit", tmp_path / "\x9b31m\u202ered", PYTHONUTF8="1")
    assert done.returncode == 3
    assert done.stderr.replace("\n", "").isprintable()


def test_one_adapter_named_twice_is_one(gradience, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "run")
    done = gradience("audit", adapter, adapter, "--json", "--no-cache")
    assert json.loads(done.stdout)["schema"] == SCHEMA


def test_a_base_that_does_not_fit_exits_3_and_still_shows_the_audit(
    gradience, tmp_path: Path
) -> None:
    base = tmp_path / "base.safetensors"
    save_file({"model.layers.0.self_attn.q_proj.weight": np.ones((8, 8), np.float32)}, base)
    done = gradience("audit", write_adapter(tmp_path / "run"), "--base-model", base)
    assert done.returncode == 3
    assert "base_model_mismatch" in done.stdout
    assert "size unchecked: no module has a weight in the base" in " ".join(done.stdout.split())
    assert "HEALTHY" in done.stdout


def test_a_typo_in_the_base_names_the_path_beside_it(gradience, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    done = gradience("audit", write_adapter(tmp_path / "run"), "--base-model", "bas",
                     HF_HUB_OFFLINE="1")  # fmt: skip
    assert done.returncode == 3
    assert "Did you mean the path base?" in done.stderr


def test_a_c_locale_ends_in_no_traceback(gradience, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "läufe 1")
    done = gradience("audit", adapter, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("how", [(), ("--base-norms-from", "n.json")])
def test_a_gpu_is_refused_where_no_base_model_is_named(
    gradience, tmp_path: Path, how: tuple[str, ...]
) -> None:
    adapter = write_adapter(tmp_path / "run")
    for device, said in (("cuda", "no base model is named"), ("gpu", "there is no device 'gpu'")):
        done = gradience("audit", adapter, "--device", device, *how)
        assert done.returncode == 2
        assert said in " ".join(done.stderr.split())
    assert gradience("audit", adapter, "--device", "cpu").returncode == 0
