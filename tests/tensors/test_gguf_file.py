"""GGUF files: what the library reads is what is read here, and a damaged file is an error."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradience.errors import TensorFileError
from gradience.tensors.gguf_file import ARCHITECTURE, BLOCKS, live_names, open_gguf

gguf = pytest.importorskip("gguf", reason="GGUF is read by the extra gradience[gguf]")


def write(path: Path) -> Path:
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_string("general.name", "ein Modell")
    writer.add_float32("llama.rope.freq_base", 1e4)
    writer.add_bool("tokenizer.ggml.add_bos_token", True)
    writer.add_array("tokenizer.ggml.tokens", ["<s>", "ä", "b"])
    writer.add_array("tokenizer.ggml.scores", [0.0, 1.0, 2.0])
    for name, kind, shape in (
        ("blk.0.attn_q.weight", "Q4_0", (8, 64)),
        ("blk.1.ffn_up_exps.weight", "Q8_0", (3, 4, 32)),
        ("output_norm.weight", "F32", (5,)),
        ("token_embd.weight", "F16", (6, 7)),
        ("output.weight", "BF16", (6, 8)),
    ):
        qtype = gguf.GGMLQuantizationType[kind]
        dense = rng.standard_normal(shape).astype(np.float32)
        plain = kind in ("F16", "F32")
        data = gguf.quants.quantize(dense, qtype)
        writer.add_tensor(name, data, raw_dtype=None if plain else qtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_what_is_read_is_what_the_library_reads(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf")
    theirs = {t.name: t for t in gguf.GGUFReader(path).tensors}
    with open_gguf(path) as ours:
        assert ours.format == "gguf"
        assert ours.metadata == {ARCHITECTURE: "llama", BLOCKS: "2"}
        assert list(ours.tensors) == list(theirs)
        for name, tensor in ours.tensors.items():
            assert tensor.shape == tuple(reversed(theirs[name].shape.tolist()))
            assert tensor.dtype.removeprefix("GGUF ") == theirs[name].tensor_type.name
            assert tensor.nbytes == theirs[name].n_bytes
            assert tensor.read().tobytes() == theirs[name].data.tobytes()
            assert not tensor.read().flags.writeable


def test_names_of_running_models_lead_to_the_names_in_the_file() -> None:
    names = live_names("llama", 2)
    assert names["model.layers.1.self_attn.q_proj"] == "blk.1.attn_q"
    assert names["model.embed_tokens"] == "token_embd"
    assert live_names("no-such-architecture", 2) == {}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write(tmp_path_factory.mktemp("gguf") / "m.gguf").read_bytes()


def refusal(path: Path, data: bytes) -> str:
    """What is said against a file; names it when nothing is, and every tensor was read."""
    path.write_bytes(data)
    try:
        with open_gguf(path) as file:
            for tensor in file.tensors.values():
                tensor.read()
    except TensorFileError as error:
        return str(error)
    return str(path)


@settings(max_examples=300)
@given(data=st.data())
def test_a_damaged_file_is_an_error_and_never_a_crash(
    data: st.DataObject, whole: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.gguf"
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(4, 900))
        damaged[at] = data.draw(st.sampled_from([0, 1, 7, 9, 64, 127, 128, 255]))
    cut = damaged[: data.draw(st.integers(0, len(damaged)))]
    assert str(path) in refusal(path, bytes(damaged))
    assert str(path) in refusal(path, bytes(cut))


@pytest.mark.parametrize(
    ("version", "what"), [(b"\x00\x00\x00\x03", "big-endian"), (b"\x01\x00\x00\x00", "version 1")]
)
def test_another_version_is_named(version: bytes, what: str, whole: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(whole[:4] + version + whole[8:])
    with pytest.raises(TensorFileError, match=what):
        open_gguf(tmp_path / "m.gguf")


def test_without_the_library_the_extra_is_named(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['gguf'] = None\n"
        "from gradience.tensors.gguf_file import open_gguf\n"
        "from gradience.errors import MissingExtraError\n"
        "try: open_gguf(sys.argv[1])\n"
        "except MissingExtraError as error: print(error.remedy)\n"
    )
    command = [sys.executable, "-c", program, str(write(tmp_path / "m.gguf"))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "gradience[gguf]" in done.stdout
