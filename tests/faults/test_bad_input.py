"""Every bad input gets one error that names the file, the value and the remedy."""

import json
import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from gradience.cli.main import main

CONFIG = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}
STEM = "base_model.model.model.layers.0.self_attn.q_proj"
A, B = f"{STEM}.lora_A.weight", f"{STEM}.lora_B.weight"


def factors(**changed: np.ndarray) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        A: rng.standard_normal((4, 16)).astype(np.float32),
        B: rng.standard_normal((16, 4)).astype(np.float32),
    } | changed


def adapter(path: Path, tensors: dict[str, np.ndarray] | None = None, **config: object) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    save_file(factors() if tensors is None else tensors, path / "adapter_model.safetensors")
    (path / "adapter_config.json").write_text(json.dumps({**CONFIG, **config}))
    return path


def with_header(path: Path, header: object, data: bytes, *, length: int | None = None) -> Path:
    """A safetensors file by hand."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = struct.pack("<Q", len(text) if length is None else length)
    (adapter(path) / "adapter_model.safetensors").write_bytes(size + text + data)
    return path


def entry(start: int, end: int, shape: list[int]) -> dict[str, object]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}


class RunsCode:
    def __reduce__(self):
        return os.system, ("touch executed",)


def pickled(path: Path) -> Path:
    adapter(path)
    (path / "adapter_model.safetensors").unlink()
    (path / "adapter_model.bin").write_bytes(pickle.dumps({A: RunsCode()}, protocol=2))
    return path


def truncated(path: Path) -> Path:
    file = adapter(path) / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    return path


def without_config(path: Path) -> Path:
    (adapter(path) / "adapter_config.json").unlink()
    return path


def without_weights(path: Path) -> Path:
    (adapter(path) / "adapter_model.safetensors").unlink()
    return path


def in_place_of(name: str, make: Callable[[Path], object]) -> Callable[[Path], Path]:
    """An adapter of which one file is something else."""

    def made(path: Path) -> Path:
        file = adapter(path) / name
        file.unlink()
        make(file)
        return path

    return made


def lfs_pointer(path: Path) -> Path:
    (adapter(path) / "adapter_model.safetensors").write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 13648432\n"
    )
    return path


def loop(path: Path) -> Path:
    path.mkdir()
    (path / "again").symlink_to(path)
    return path


def link_to_itself(path: Path) -> Path:
    path.symlink_to(path)
    return path


def empty(path: Path) -> Path:
    path.mkdir()
    return path


CASES: dict[str, tuple[Callable[[Path], Path], int, list[str]]] = {
    "missing path": (lambda p: p, 3, ["bad"]),
    "empty directory": (empty, 3, ["bad"]),
    "no config": (without_config, 3, ["adapter_config.json"]),
    "config without weights": (without_weights, 3, ["adapter_model.safetensors"]),
    "unknown peft_type": (lambda p: adapter(p, peft_type="MAGIC"), 3, ["MAGIC"]),
    "a type that needs more than its file": (lambda p: adapter(p, peft_type="IA3"), 3, ["IA3"]),
    "rank that is no number": (lambda p: adapter(p, r="eight"), 3, ["eight", "r"]),
    "alpha that is infinite": (lambda p: adapter(p, lora_alpha=1e999), 3, ["inf"]),
    "LFS pointer": (lfs_pointer, 3, ["Git LFS pointer", "13648432"]),
    "truncated": (truncated, 3, ["100 bytes"]),
    "header of 2^63 bytes": (
        lambda p: with_header(p, b"{}", b"", length=2**63), 3, [str(2**63)],
    ),
    "header past the end": (lambda p: with_header(p, b"{}", b"", length=10**6), 3, ["1000000"]),
    "not JSON": (lambda p: with_header(p, b"{nonsense", b""), 3, ["adapter_model.safetensors"]),
    "overlapping offsets": (
        lambda p: with_header(p, {A: entry(0, 8, [2]), B: entry(4, 12, [2])}, b"\0" * 12), 3,
        ["overlap"],
    ),
    "offsets out of the file": (
        lambda p: with_header(p, {A: entry(0, 4000, [1000])}, b"\0" * 8), 3, ["4000"],
    ),
    "duplicate keys": (
        lambda p: with_header(
            p, f'{{"{A}":{json.dumps(entry(0, 8, [2]))},"{A}":{json.dumps(entry(0, 8, [2]))}}}'
            .encode(), b"\0" * 8,
        ), 3, ["twice"],
    ),
    "A without B": (
        lambda p: adapter(p, {A: factors()[A]}), 3, ["q_proj", "lora_B"],
    ),
    "factors that do not fit": (
        lambda p: adapter(p, factors(**{B: np.ones((16, 3), np.float32)})), 3, ["4", "3", "q_proj"],
    ),
    "zero-size tensors": (
        lambda p: adapter(p, factors(**{A: np.zeros((0, 16), np.float32)})), 3, ["q_proj"],
    ),
    "a pickle that wants to run code": (pickled, 3, ["adapter_model.bin", "system"]),
    "a directory that loops": (loop, 3, ["bad"]),
    "a link to itself": (link_to_itself, 3, ["bad"]),
    "a pipe for a config": (
        in_place_of("adapter_config.json", os.mkfifo), 3, ["adapter_config.json is a named pipe"],
    ),
    "a device for a config": (
        in_place_of("adapter_config.json", lambda f: f.symlink_to("/dev/zero")), 3, ["a device"],
    ),
    "weights that a link to nothing stands for": (
        in_place_of("adapter_model.safetensors", lambda f: f.symlink_to("nowhere")), 3,
        ["adapter_model.safetensors is a link to nowhere, which does not exist"],
    ),
    "half of a pair in a config": (
        lambda p: adapter(p, base_model_name_or_path="\ud800"), 3, ["adapter_config.json"],
    ),
    "a full model": (
        lambda p: (p.mkdir(), save_file(factors(), p / "model.safetensors"), p)[-1], 3,
        ["model.safetensors"],
    ),
}  # fmt: skip


def run(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main([str(arg) for arg in args])
    streams = capsys.readouterr()
    return int(ended.value.code or 0), streams.out, streams.err


@pytest.mark.parametrize("case", list(CASES))
def test_bad_input_is_one_error(case: str, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    make, code, named = CASES[case]
    ended, out, err = run(capsys, "audit", make(tmp_path / "bad"), "--no-cache")
    assert ended == code, err
    assert out == ""
    lines = err.strip().splitlines()
    assert lines[0].startswith("error: "), err
    assert lines[-1].startswith("hint: "), err
    assert str(tmp_path / "bad") in err
    for text in named:
        assert text in err
    assert not (tmp_path / "executed").exists()


def test_nan_is_a_finding_that_leaves_the_rest_measured(tmp_path: Path, capsys) -> None:
    tensors = factors()
    for block in (1, 2):
        for key, value in factors().items():
            tensors[key.replace("layers.0", f"layers.{block}")] = value
    tensors[A.replace("layers.0", "layers.1")][0, 0] = np.nan
    path = adapter(tmp_path / "nan", tensors)
    code, out, _ = run(capsys, "audit", path, "--no-cache", "--json", "--fail-on", "not_finite")
    assert code == 1
    audit = json.loads(out, parse_constant=pytest.fail)["content"]
    assert audit["verdict"] == "broken"
    finding = next(f for f in audit["findings"] if f["code"] == "not_finite")
    assert finding["modules"] == ["model.layers.1.self_attn.q_proj"]
    assert audit["overall"]["stable_rank"]["count"] == 2
    assert "NaN" in audit["layers"][1]["unmeasured"]["stable_rank"]


@pytest.mark.filterwarnings("error")
def test_a_nan_that_signals_is_counted_without_a_warning(tmp_path: Path, capsys) -> None:
    head = np.frombuffer(np.full(8, 0x7FA00000, np.uint32).tobytes(), np.float32).reshape(2, 4)
    tensors = factors(**{"base_model.model.classifier.weight": head})
    path = adapter(tmp_path / "nan", tensors, modules_to_save=["classifier"])
    _, out, err = run(capsys, "audit", path, "--no-cache", "--json")
    (finding,) = [f for f in json.loads(out)["content"]["findings"] if f["code"] == "not_finite"]
    assert "8 NaN or Inf" in finding["message"]
    assert err == ""


def test_a_file_of_zeros_behind_a_good_header_is_found(tmp_path: Path, capsys) -> None:
    path = adapter(tmp_path / "zeros", {k: np.zeros_like(v) for k, v in factors().items()})
    _, out, _ = run(capsys, "audit", path, "--no-cache", "--json")
    assert "zero_filled" in {f["code"] for f in json.loads(out)["content"]["findings"]}


def test_ranks_that_disagree_with_the_config_are_found(tmp_path: Path, capsys) -> None:
    _, out, _ = run(capsys, "audit", adapter(tmp_path / "r", r=8), "--no-cache", "--json")
    content = json.loads(out)["content"]
    assert "rank_mismatch" in {f["code"] for f in content["findings"]}
    assert content["layers"][0]["rank"] == 4


def test_an_index_that_points_outside_its_directory_is_refused(tmp_path: Path, capsys) -> None:
    base = tmp_path / "base"
    base.mkdir()
    save_file({"model.layers.0.self_attn.q_proj.weight": np.eye(16, dtype=np.float32)},
              tmp_path / "outside.safetensors")  # fmt: skip
    (base / "model.safetensors.index.json").write_text(
        json.dumps(
            {"weight_map": {"model.layers.0.self_attn.q_proj.weight": "../outside.safetensors"}}
        )
    )
    code, _, err = run(capsys, "audit", adapter(tmp_path / "a"), "--base-model", base, "--no-cache")
    assert code == 3
    assert "../outside.safetensors" in err


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_unreadable_permissions_are_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    path = adapter(tmp_path / "mine")
    (path / "adapter_model.safetensors").chmod(0o000)
    code = (
        "import os, sys\n"
        "from gradience.cli import audit\n"
        "from gradience.audit import run\n"
        "from gradience.cli.main import main\n"
        "os.setegid(65534); os.seteuid(65534)\n"
        "main(['audit', sys.argv[1], '--no-cache'])\n"
    )
    for parent in tmp_path.parents:
        if parent.stat().st_mode & 0o005 != 0o005:
            if not str(parent).startswith("/tmp/"):
                pytest.skip(f"nobody may not look into {parent}")
            parent.chmod(parent.stat().st_mode | 0o005)
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
    )
    if "ModuleNotFoundError" in done.stderr or "init_import_site" in done.stderr:
        pytest.skip("nobody may not read this installation")
    assert done.returncode == 3, done.stderr
    assert "adapter_model.safetensors" in done.stderr
    assert "ermission" in done.stderr
