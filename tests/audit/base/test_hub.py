"""A base model on the Hub: a loop-back server answers, the real huggingface_hub asks.

Its settings are read when it is imported, so each promise is looked at in a process of its own.
"""

import json
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from factories_packed import Packed, bitsandbytes_4bit, gptq
from hub_server import COMMIT, WELL, Behaviour, Hub, Repo, serve

SHARDS = {
    "model-00001-of-00002.safetensors": {"model.layers.0.self_attn.q_proj.weight": (480, 400)},
    "model-00002-of-00002.safetensors": {
        "model.layers.1.self_attn.q_proj.weight": (480, 400),
        "model.layers.1.mlp.never_adapted.weight": (480, 1000),
    },
}
FIRST, SECOND = SHARDS
NBYTES = 480 * 400 * 4


def model_files() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    files = {
        name: save({n: rng.standard_normal(s, dtype=np.float32) for n, s in tensors.items()})
        for name, tensors in SHARDS.items()
    }
    weight_map = {tensor: name for name, tensors in SHARDS.items() for tensor in tensors}
    files["model.safetensors.index.json"] = json.dumps({"weight_map": weight_map}).encode()
    files["config.json"] = b'{"tie_word_embeddings": false}'
    files["modeling_evil.py"] = b"raise SystemExit"
    return files


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve(cdn=True, org__tiny=Repo(model_files())) as served:
        yield served


PROGRAM = """
    import json, os, sys
    from datetime import UTC, datetime
    from pathlib import Path
    from factories_bases import lora_layer
    from gradience.audit.base.known import Settings
    from gradience.audit.base.norms import base_norms
    from gradience.audit.base.source import open_base
    from gradience.audit.base.terms import Terms, refuse
    from gradience.blas import one_thread
    from gradience.errors import GradienceError

    def written():
        counts = Path("/proc/self/io")
        lines = counts.read_text().splitlines() if counts.exists() else ["write_bytes: 0"]
        return int(dict(line.split(": ") for line in lines)["write_bytes"])

    base_id, cache, which = sys.argv[1:]
    layers = [lora_layer(f"model.layers.{at}.self_attn.q_proj", (480, 400)) for at in which]
    told, notices, before = [], [], written()
    try:
        progress = lambda *step: told.append(step)
        terms = Terms(approve=(lambda files: None) if os.environ.get("YES") else refuse,
                      limit=int(os.environ["LIMIT"]) if "LIMIT" in os.environ else None)
        opened = open_base(base_id, terms=terms, progress=progress)
        with one_thread(os.environ), opened as base:
            found = base_norms(layers, base, Settings(Path(cache), datetime.now(UTC),
                               progress=progress, notice=notices.append))
    except GradienceError as error:
        print(json.dumps({"error": str(error), "remedy": error.remedy, "code": error.code}))
    else:
        print(json.dumps({
            "model": found.model, "revision": found.revision, "fingerprint": found.fingerprint,
            "norms": {label: (norm.lower, norm.upper, norm.frobenius)
                      for label, norm in found.by_layer.items()},
            "bytes_read": found.bytes_read, "findings": [f.code for f in found.findings],
            "torch": "torch" in sys.modules, "told": told, "notices": notices,
            "written": written() - before,
        }))
"""


@dataclass
class Client:
    """A machine with a Hub cache and a cache of norms."""

    hub: Hub
    home: Path

    def environ(self) -> dict[str, str]:
        return {
            **{k: v for k, v in os.environ.items() if not k.startswith("HF_")},
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "HF_ENDPOINT": self.hub.url,
            "HF_HOME": str(self.home / "hf"),
            "HF_TOKEN": "hf_secret",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            "TMPDIR": str(self.home),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def audit(
        self,
        base: str = "org/tiny",
        layers: str = "01",
        *,
        norms: str = "norms",
        **environ: str,
    ) -> dict[str, Any]:
        self.hub.forget()
        command = [sys.executable, "-c", textwrap.dedent(PROGRAM), base]
        done = subprocess.run(
            [*command, str(self.home / norms), layers],
            env={**self.environ(), **environ},
            cwd=self.home,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return result

    def download(self, *names: str) -> None:
        """Fill the Hub cache as `hf download` does."""
        program = """if True:
            import sys, huggingface_hub
            for name in sys.argv[1:]:
                huggingface_hub.hf_hub_download("org/tiny", name)
        """
        subprocess.run([sys.executable, "-c", program, *names], env=self.environ(), check=True)

    def spans(self, name: str) -> list[str]:
        """Ranges of a file whose content was sent, but for its beginning."""
        return [a.span for a in self.hub.asked if a.file == name and a.has_range]

    def files(self) -> set[str]:
        """Every file below the home, relative."""
        return {p.relative_to(self.home).as_posix() for p in self.home.rglob("*") if p.is_file()}


@pytest.fixture
def client(hub: Hub, tmp_path: Path) -> Client:
    return Client(hub=hub, home=tmp_path)


def local_answer(client: Client) -> dict[str, Any]:
    """What the same files give when they lie on this disk."""
    directory = client.home / "local"
    directory.mkdir()
    for name, data in client.hub.repos["org/tiny"].files.items():
        (directory / name).write_bytes(data)
    return client.audit(str(directory), norms="local-norms")


def test_a_base_that_is_not_here_is_read_by_range_and_not_written(client: Client) -> None:
    found = client.audit()
    assert (found["model"], found["revision"], found["torch"]) == ("org/tiny", COMMIT, False)
    assert found["bytes_read"] == 2 * NBYTES
    # Of each shard the beginning, and the one tensor that is adapted, in one request.
    for shard in SHARDS:
        (span,) = client.spans(shard)
        first, last = map(int, span.removeprefix("bytes=").split("-"))
        assert last - first + 1 == NBYTES
    assert client.files() == {
        f"norms/org--tiny@{COMMIT[:7]}-{found['fingerprint'][7:15]}.json",
        f"norms/org--tiny@{COMMIT[:7]}-{found['fingerprint'][7:15]}.json.lock",
    }
    assert found["written"] < NBYTES // 4  # of 2 tensors; the norms are a page or two
    assert {a.token for a in client.hub.asked if not a.on_cdn} == {"Bearer hf_secret"}
    assert {a.token for a in client.hub.asked if a.on_cdn} == {""}
    assert [file for file in client.hub.fetched() if file.endswith(".py")] == []

    local = local_answer(client)
    assert found["norms"] == local["norms"]


def test_what_comes_over_the_network_is_told(client: Client) -> None:
    found = client.audit()
    assert found["notices"] == [
        "reading 1.54 MB, 2 of 2 tensors of base model org/tiny, over the network; none of it is "
        "written"
    ]
    bytes_told = [step[1:] for step in found["told"] if step[0] == "bytes of the base"]
    assert bytes_told[-1] == [2 * NBYTES, 2 * NBYTES]
    assert bytes_told == sorted(bytes_told)
    assert found["told"][-1] == ["base norms", 2, 2]
    again = client.audit()
    assert (again["bytes_read"], again["notices"]) == (0, [])
    assert again["norms"] == found["norms"]
    assert client.spans(FIRST) == client.spans(SECOND) == []


def test_what_lies_in_the_cache_is_used_from_there(client: Client) -> None:
    client.download("model.safetensors.index.json", SECOND)
    found = client.audit()
    assert client.spans(SECOND) == []
    assert len(client.spans(FIRST)) == 1
    assert "1 of 2 tensors of base model org/tiny (1 in the cache)" in found["notices"][0]
    assert found["norms"] == local_answer(client)["norms"]

    # Offline with half of the shards: what is there is served, what is not is named.
    served = client.audit(layers="1", norms="other", HF_HUB_OFFLINE="1")
    assert served["norms"].items() <= found["norms"].items()
    assert client.hub.requests == []
    missing = client.audit(layers="01", norms="other", HF_HUB_OFFLINE="1")
    assert FIRST in missing["error"]
    assert "model.layers.0.self_attn.q_proj" in missing["error"]
    assert "hf download org/tiny" in missing["remedy"]

    # Remembered norms serve whatever the way the bytes came.
    remembered = client.audit(layers="1", HF_HUB_OFFLINE="1")
    assert (remembered["bytes_read"], remembered["norms"]) == (0, served["norms"])

    # A pinned commit whose files are all there asks nobody.
    client.download(FIRST, "config.json")
    pinned = client.audit(f"org/tiny@{COMMIT}", norms="other")
    assert client.hub.requests == []
    assert (pinned["fingerprint"], pinned["norms"]) == (found["fingerprint"], found["norms"])


def test_a_part_that_lies_alone_in_the_cache_is_not_the_model(client: Client) -> None:
    client.download(FIRST)
    found = client.audit(f"org/tiny@{COMMIT}")
    assert sorted(found["norms"]) == [f"model.layers.{at}.self_attn.q_proj" for at in range(2)]
    offline = client.audit(f"org/tiny@{COMMIT}", HF_HUB_OFFLINE="1", norms="other")
    assert f"it holds {FIRST}, which is a part of a model" in offline["error"]
    (client.home / "hf/hub/models--org--tiny/refs/main").write_bytes(b"\xff")
    assert client.audit()["norms"] == found["norms"]


def test_a_folder_of_a_pipeline_that_is_not_in_the_cache_is_not_missing(client: Client) -> None:
    unet, encoder = "unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"
    files = {unet: save({"w": np.ones((4, 4), np.float32)}), encoder: model_files()[FIRST]}
    client.hub.repos["org/tiny"] = Repo(files)
    client.download(unet)
    assert len(client.audit(f"org/tiny@{COMMIT}", layers="0")["norms"]) == 1


def test_a_hub_that_is_down_is_an_error_only_where_the_cache_does_not_help(client: Client) -> None:
    error = client.audit(HF_ENDPOINT="http://127.0.0.1:1")["error"]
    assert "there is no such file or directory here, and the Hub did not answer" in error
    client.download("model.safetensors.index.json", "config.json", *SHARDS)
    online = client.audit()
    client.hub.down = True
    assert client.audit()["norms"] == online["norms"]


def test_a_hub_that_stumbles_when_it_is_asked_for_the_model_is_asked_again(client: Client) -> None:
    client.hub.stumbles = 1
    assert client.audit()["norms"]


def test_a_hub_that_is_silent_when_it_is_asked_for_the_model_is_not_waited_for_for_ever(
    client: Client,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        # Without the last one the client itself asks for 3 s what else it might tell.
        environ = {"HF_HUB_ETAG_TIMEOUT": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        answer = client.audit(HF_ENDPOINT=address, **environ)
    assert "the Hub did not answer" in answer["error"]


@pytest.mark.parametrize(
    ("page", "commit"),
    [
        (b"<html>Log in to this network</html>", COMMIT),
        (b"{}", COMMIT),
        (b'{"id": "org/tiny", "sha": "%s", "siblings": [{"rfilename": 5}]}' % COMMIT.encode(), ""),
        (b"", "main"),  # no commit: what lies under it may change, and norms are kept under it
    ],
)
def test_what_is_not_the_hub_is_not_believed(page: bytes, commit: str, client: Client) -> None:
    client.hub.page = page
    client.hub.repos["org/tiny"] = Repo(model_files(), commit=commit)
    error = client.audit()["error"]
    assert f"the Hub did not answer: what answers at {client.hub.url} is not the Hub" in error or (
        f"what {client.hub.url} answers is not what the Hub would" in error
    )


def test_a_commit_is_not_another_because_a_server_says_so(client: Client) -> None:
    other = Repo(model_files(), revisions=("main", "0" * 40))
    client.hub.repos["org/tiny"] = other
    assert "is not what the Hub would" in client.audit(f"org/tiny@{'0' * 40}")["error"]


def test_a_file_of_unknown_size_is_not_downloaded_whatever_was_said(client: Client) -> None:
    page = {"id": "org/tiny", "sha": COMMIT, "siblings": [{"rfilename": "pytorch_model.bin"}]}
    client.hub.page = json.dumps(page).encode()
    answer = client.audit(YES="1")
    assert "does not say how large it is" in answer["error"]
    assert "hf download org/tiny pytorch_model.bin" in answer["remedy"]


def test_what_is_wrong_with_a_name_is_said_with_the_name(client: Client) -> None:
    assert "no model of that name" in client.audit("org/other")["error"]
    assert "no revision v2" in client.audit("org/tiny@v2")["error"]
    offline = client.audit("org/tiny@v2", HF_HUB_OFFLINE="1")
    assert "revision v2 of org/tiny is not in the cache" in offline["error"]
    client.hub.repos["org/tiny"].gated = True
    gated = client.audit()
    assert "gated" in gated["error"]
    assert "hf auth login" in gated["remedy"]


def test_a_repository_without_weights_is_refused(client: Client) -> None:
    client.hub.repos["org/tiny"] = Repo({"model.onnx": b"", "config.json": b"{}"})
    assert "holds no weights" in client.audit()["error"]


def test_weights_under_a_name_of_their_own_are_named_by_their_address(client: Client) -> None:
    """A Hub id cannot name a file; the address that the error gives can be used as it is."""
    files = {name: data for name, data in model_files().items() if name.endswith(".safetensors")}
    one, two = files.values()
    client.hub.repos["org/odd"] = Repo({"a.safetensors": one, "b.safetensors": two})
    refused = client.audit("org/odd")
    assert "named as a model's: a.safetensors" in refused["error"]
    address = refused["remedy"].split()[-1]
    assert address.endswith("/a.safetensors")
    assert "error" not in client.audit(address, "0")


def test_a_server_that_stalls_is_asked_again(client: Client) -> None:
    stalls = iter([Behaviour(seconds=3)])
    client.hub.misbehave = lambda asked: next(stalls, WELL) if asked.has_range else WELL
    found = client.audit(layers="1", HF_HUB_DOWNLOAD_TIMEOUT="1")
    assert found["bytes_read"] == NBYTES
    assert len(client.spans(SECOND)) == 2


INDEX_OF_TWO = b'{"weight_map": {"a": "pytorch_model-1.bin", "b": "pytorch_model-2.bin"}}'


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"pytorch_model.bin": b"b" * 12_345}, "pytorch_model.bin of 12.3 KB"),
        (
            {
                "pytorch_model.bin.index.json": INDEX_OF_TWO,
                "pytorch_model-1.bin": b"b" * 1000,
                "pytorch_model-2.bin": b"b" * 2000,
            },
            "2 files of 3.00 KB",
        ),
        (
            {"tiny-Q8_0.gguf": b"GGUF"},
            "a GGUF file, which cannot be read by range; tiny-Q8_0.gguf of 4 B",
        ),
    ],
)
def test_a_file_that_cannot_be_read_by_range_is_not_downloaded_unasked(
    files: dict[str, bytes], said: str, client: Client
) -> None:
    client.hub.repos["org/tiny"] = Repo(files)
    refused = client.audit()
    assert refused["code"] == "download_refused"
    assert f"{said} would be downloaded into {client.home / 'hf' / 'hub'}" in refused["error"]
    assert "hf download org/tiny" in refused["remedy"]
    assert not any(name.endswith((".bin", ".gguf")) for name in client.hub.fetched())
    assert client.files() == set()


@pytest.mark.parametrize("where", ["config.json", "quantize_config.json"])
def test_a_quantised_model_is_read_as_its_config_says(client: Client, where: str) -> None:
    packed = gptq(inputs=400, outputs=480, group=16, version=2)
    stated = dict(packed.config)
    files = {"config.json": b"{}", where: json.dumps(stated).encode()}
    if where == "config.json":
        files[where] = json.dumps({"quantization_config": stated}).encode()
    client.hub.repos["org/tiny"] = Repo({"model.safetensors": save(dict(packed.tensors)), **files})
    largest = float(np.linalg.svd(packed.dense, compute_uv=False)[0])
    lower, upper, _ = client.audit(layers="0")["norms"]["model.layers.0.self_attn.q_proj"]
    assert lower <= largest * (1 + 1e-6)
    assert largest <= upper * (1 + 1e-6)


@pytest.mark.parametrize(
    ("packed", "notes"),
    [
        (bitsandbytes_4bit(shape=(480, 400), nested=True), ("quant_state",)),
        (gptq(inputs=400, outputs=480, group=16), ()),
    ],
    ids=["nf4", "GPTQ"],
)
def test_of_a_packed_model_only_what_is_needed_comes(
    client: Client, packed: Packed, notes: tuple[str, ...]
) -> None:
    # Two alike, of which the adapter changes the first.
    second = {name.replace(".0.", ".1."): array for name, array in packed.tensors.items()}
    config = json.dumps({"quantization_config": dict(packed.config)}).encode()
    whole = save({**packed.tensors, **second})
    client.hub.repos["org/tiny"] = Repo({"model.safetensors": whole, "config.json": config})
    needed = sum(a.nbytes for n, a in packed.tensors.items() if not any(x in n for x in notes))
    told = 2 * sum(a.nbytes for n, a in packed.tensors.items() if any(x in n for x in notes))

    refused = client.audit(layers="0", LIMIT=str(needed - 1))
    assert refused["code"] == "download_refused"
    assert sum(lengths(client.spans("model.safetensors"))) == told

    found = client.audit(layers="0", LIMIT=str(needed))
    assert found["bytes_read"] == needed
    assert sum(lengths(client.spans("model.safetensors"))) == told + needed
    assert found["findings"] == []
    largest = float(np.linalg.svd(packed.dense, compute_uv=False)[0])
    ((lower, upper, _),) = found["norms"].values()
    assert lower <= largest * (1 + 1e-6)
    assert largest <= upper * (1 + 1e-6)
    # To the last digit what the same files give on this disk.
    assert found["norms"].items() <= local_answer(client)["norms"].items()


def lengths(spans: list[str]) -> list[int]:
    """Bytes of ranges as they are asked for."""
    ends = [map(int, span.removeprefix("bytes=").split("-")) for span in spans]
    return [last - first + 1 for first, last in ends]


def test_a_gguf_model_is_read_by_live_names(client: Client, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf", reason="GGUF is read by the extra gradience[gguf]")
    dense = np.random.default_rng(1).standard_normal((480, 400)).astype(np.float16)
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_block_count(1)
    writer.add_tensor("blk.0.attn_q.weight", dense)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    client.hub.repos["org/tiny"] = Repo(
        {"m.gguf": (tmp_path / "m.gguf").read_bytes(), "config.json": b"{}"}
    )
    found = client.audit(layers="0", YES="1")
    lower, upper, _ = found["norms"]["model.layers.0.self_attn.q_proj"]
    largest = float(np.linalg.svd(dense.astype(np.float64), compute_uv=False)[0])
    assert lower <= largest * (1 + 1e-6)
    assert largest <= upper * (1 + 1e-6)
    # It is in the Hub's cache now, where it need not be asked for.
    offline = client.audit(layers="0", norms="anew", HF_HUB_OFFLINE="1")
    assert offline["norms"] == found["norms"]
