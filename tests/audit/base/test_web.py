"""A base model at an address: a web server or a store that fsspec knows, in the place of a disk."""

import json
import os
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

import fsspec
import numpy as np
import pytest
from safetensors.numpy import save, save_file

from factories_bases import lora_layer
from gradience.audit.base.known import Settings
from gradience.audit.base.norms import BaseNorms, base_norms
from gradience.audit.base.source import open_base
from gradience.audit.base.terms import Terms, WholeFiles
from gradience.audit.norms import keep
from gradience.audit.run import audit_lora_peft_dir
from gradience.blas import one_thread
from gradience.errors import (
    BaseModelError,
    DownloadRefusedError,
    GradienceError,
    MissingExtraError,
    StorageError,
    TransferError,
)
from hub_server import WELL, Asked, Behaviour, Hub, Repo, serve

NOW = datetime(2026, 11, 26, tzinfo=UTC)
SHARDS = {
    "model-00001-of-00002.safetensors": {"model.layers.0.mlp.up_proj.weight": (300, 200)},
    "model-00002-of-00002.safetensors": {
        "model.layers.1.mlp.up_proj.weight": (300, 200),
        "model.layers.2.mlp.up_proj.weight": (300, 200),
    },
}
FIRST, SECOND = SHARDS
NBYTES = 300 * 200 * 4
INDEX = "model.safetensors.index.json"


def model_files(seed: int = 0) -> dict[str, bytes]:
    rng = np.random.default_rng(seed)
    files = {
        name: save({n: rng.standard_normal(s, dtype=np.float32) for n, s in tensors.items()})
        for name, tensors in SHARDS.items()
    }
    weight_map = {tensor: name for name, tensors in SHARDS.items() for tensor in tensors}
    return files | {INDEX: json.dumps({"weight_map": weight_map}).encode(), "config.json": b"{}"}


@pytest.fixture(autouse=True)
def session(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The session of huggingface_hub, on the loop-back interface."""
    from huggingface_hub.utils import close_session  # noqa: PLC0415 - reads the environment

    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    yield
    close_session()


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve(org__m=Repo(model_files())) as served:
        yield served


def folder(hub: Hub) -> str:
    return f"{hub.url}/org/m/resolve/main"


def norms_of(base_id: str | Path, cache: Path, layers: str = "012", **options: Any) -> BaseNorms:
    wanted = [lora_layer(f"model.layers.{at}.mlp.up_proj", (300, 200)) for at in layers]
    with one_thread(os.environ), open_base(base_id, terms=options.pop("terms", None)) as base:
        return base_norms(wanted, base, Settings(cache, NOW, **options))


@pytest.fixture
def local(tmp_path: Path) -> BaseNorms:
    """The answer when the same files lie on this disk."""
    for name, data in model_files().items():
        (tmp_path / "local").mkdir(exist_ok=True)
        (tmp_path / "local" / name).write_bytes(data)
    return norms_of(tmp_path / "local", tmp_path / "local-norms")


def spans(hub: Hub, name: str) -> list[str]:
    return [asked.span for asked in hub.asked if asked.file == name and asked.has_range]


@pytest.mark.parametrize("end", ["", "/", f"/{INDEX}", "?sv=1&sig=secret"])
def test_a_directory_and_an_index_at_an_address_give_the_local_answer(
    end: str, hub: Hub, local: BaseNorms, tmp_path: Path
) -> None:
    found = norms_of(folder(hub) + end, tmp_path / "norms")
    assert found.by_layer == local.by_layer
    assert found.bytes_read == 3 * NBYTES
    assert "secret" not in found.model
    assert norms_of(folder(hub) + end, tmp_path / "norms").bytes_read == 0
    assert "hf_" not in "".join(hub.tokens)


def test_a_file_at_an_address_is_one_shard(hub: Hub, local: BaseNorms, tmp_path: Path) -> None:
    found = norms_of(f"{folder(hub)}/{SECOND}?sig=x", tmp_path / "norms", "12")
    assert found.by_layer.items() <= local.by_layer.items()
    assert found.model == f"{folder(hub)}/{SECOND}"


def test_a_name_with_a_space_is_asked_for_as_it_is(hub: Hub, tmp_path: Path) -> None:
    hub.repos["org/m"] = Repo({"a dir/my model.safetensors": model_files()[FIRST]})
    address = f"{folder(hub)}/a%20dir/my%20model.safetensors"
    assert norms_of(address, tmp_path / "norms", "0").bytes_read == NBYTES


def test_another_version_at_an_address_never_meets_old_norms(hub: Hub, tmp_path: Path) -> None:
    old = norms_of(folder(hub), tmp_path / "norms")
    hub.repos["org/m"] = Repo(model_files(seed=1))
    new = norms_of(folder(hub), tmp_path / "norms")
    assert new.bytes_read == old.bytes_read
    assert new.by_layer != old.by_layer


def test_a_server_that_names_no_version_is_sampled(hub: Hub, tmp_path: Path) -> None:
    hub.misbehave = lambda asked: Behaviour(headers={"ETag": ""})
    old = norms_of(folder(hub), tmp_path / "norms")
    assert norms_of(folder(hub), tmp_path / "norms").bytes_read == 0
    hub.repos["org/m"] = Repo(model_files(seed=1))
    assert norms_of(folder(hub), tmp_path / "norms").bytes_read == old.bytes_read


def test_a_weak_etag_is_no_version_and_all_that_can_be_known_is_asked_and_said(
    hub: Hub, tmp_path: Path
) -> None:
    def answered(etag: str, date: str = "Wed, 25 Nov 2026 10:00:00 GMT") -> tuple[str, str, str]:
        hub.misbehave = lambda asked: Behaviour(headers={"ETag": etag, "Last-Modified": date})
        notices: list[str] = []
        cache = tmp_path / str(len(list(tmp_path.iterdir())))
        found = norms_of(f"{folder(hub)}/{FIRST}", cache, "0", notice=notices.append)
        return found.known_by, found.fingerprint, notices[0]

    how, weak, said = answered('W/"1"')
    assert how == "sample"
    assert "names no version of it" in said
    assert answered('W/"1"')[1] == weak
    assert answered('W/"1"', "Thu, 26 Nov 2026 10:00:00 GMT")[1] != weak
    how, _, said = answered('"1"')
    assert how == "version"
    assert "names no version" not in said


def test_a_limit_refuses_before_the_first_byte_with_the_arithmetic(
    hub: Hub, tmp_path: Path
) -> None:
    with pytest.raises(DownloadRefusedError) as caught:
        norms_of(folder(hub), tmp_path / "norms", terms=Terms(limit=2 * NBYTES + 1000))
    assert str(caught.value) == (
        f"3 of 3 tensors of base model {folder(hub)}: 720 KB would come over the network, 239 KB "
        "more than the 481 KB that may"
    )
    assert "--max-download 1MB" in caught.value.remedy
    assert spans(hub, FIRST) == spans(hub, SECOND) == []
    # A limit is that of a run; what is remembered costs nothing.
    terms = Terms(limit=2 * NBYTES)
    assert norms_of(folder(hub), tmp_path / "norms", "01", terms=terms).bytes_read == 2 * NBYTES
    assert norms_of(folder(hub), tmp_path / "norms", "01", terms=terms).bytes_read == 0
    with pytest.raises(DownloadRefusedError, match="after 480 KB before"):
        norms_of(folder(hub), tmp_path / "norms", "012", terms=terms)


def test_a_connection_that_is_cut_again_and_again_changes_no_digit(
    hub: Hub, local: BaseNorms, tmp_path: Path
) -> None:
    dice = random.Random(3)

    def cut(asked: Asked) -> Behaviour:
        return Behaviour(cut=dice.randrange(1, 40_000)) if asked.has_range else WELL

    hub.misbehave = cut
    assert norms_of(folder(hub), tmp_path / "norms").by_layer == local.by_layer
    assert len(spans(hub, FIRST) + spans(hub, SECOND)) > 30


def test_what_was_measured_before_a_failure_is_kept(hub: Hub, tmp_path: Path) -> None:
    hub.misbehave = lambda asked: (
        Behaviour(ignore_range=True) if asked.file == SECOND and asked.has_range else WELL
    )
    with pytest.raises(TransferError, match=f"{SECOND}: its server does not answer range requests"):
        norms_of(folder(hub), tmp_path / "norms")
    hub.misbehave = lambda asked: WELL
    assert norms_of(folder(hub), tmp_path / "norms").bytes_read == 2 * NBYTES


def test_what_can_be_kept_nowhere_is_not_measured_to_its_end(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"no directory")
    told: list[int] = []
    settings = Settings(
        tmp_path / "file", NOW, progress=lambda stage, done, total: told.append(done)
    )
    with (
        one_thread(os.environ),
        open_base(folder(hub)) as base,
        pytest.raises(StorageError, match="cannot be created"),
    ):
        keep.measure_base(base, settings)
    assert told == [1]


def test_a_header_that_lies_about_its_file_is_refused(hub: Hub, tmp_path: Path) -> None:
    files = model_files()
    files[SECOND] = files[SECOND][:-100]
    hub.repos["org/m"] = Repo(files)
    with pytest.raises(BaseModelError, match="100 bytes shorter than its header says"):
        norms_of(folder(hub), tmp_path / "norms")


@pytest.mark.parametrize(
    ("files", "end", "message"),
    [
        ({}, "", "no file there has a usual name"),
        ({"m.gguf": b"GGUF"}, "/m.gguf", "GGUF"),
        ({"pytorch_model.bin": b"b"}, "", "is a torch checkpoint, which cannot be read by range"),
        ({"w.pt": b"b"}, "/w.pt", "is a torch checkpoint, which cannot be read by range"),
        ({"m.safetensors": b"<html>" + b" " * 99}, "/m.safetensors", "is an HTML page"),
        ({"m.safetensors": b""}, "/m.safetensors", "it is empty"),
        ({}, "/m.safetensors?sig=secret", "m.safetensors: it is not there (404)"),
        ({INDEX: b"{}"}, "", "has no weight_map"),
        ({INDEX: b'{"weight_map": {"a": "../x.safetensors"}}'}, "", "not a file in the directory"),
    ],
)
def test_what_cannot_be_a_base_is_refused_with_its_address(
    files: dict[str, bytes], end: str, message: str, hub: Hub
) -> None:
    hub.repos["org/m"] = Repo(files)
    with pytest.raises(GradienceError) as caught:
        open_base(folder(hub) + end)
    assert message in str(caught.value)
    assert hub.url in str(caught.value)
    assert "secret" not in f"{caught.value} {caught.value.remedy}"


def test_one_expert_of_a_stack_comes_alone(tmp_path: Path, hub: Hub) -> None:
    rng = np.random.default_rng(0)
    stack = rng.standard_normal((8, 100, 90), dtype=np.float32)
    hub.repos["org/m"] = Repo({"model.safetensors": save({"experts.gate_up_proj": stack})})
    with open_base(folder(hub)) as base:
        stored = base.tensor("experts.gate_up_proj")
        np.testing.assert_array_equal(stored.at(5), stack[5])
        np.testing.assert_array_equal(stored.read(), stack)
        stored.release()
    first, last = map(int, spans(hub, "model.safetensors")[0].removeprefix("bytes=").split("-"))
    assert last - first + 1 == 100 * 90 * 4


@pytest.fixture
def store(tmp_path: Path) -> Iterator[str]:
    """A store of fsspec, with the model in it."""
    fs = fsspec.filesystem("memory")
    for name, data in model_files().items():
        fs.pipe_file(f"/bucket/model/{name}", data)
    yield "memory://bucket/model"
    fs.rm("/bucket", recursive=True)


@pytest.mark.parametrize("end", ["", f"/{INDEX}"])
def test_a_store_of_fsspec_gives_the_local_answer(
    end: str, store: str, local: BaseNorms, tmp_path: Path
) -> None:
    found = norms_of(store + end, tmp_path / "norms")
    assert found.by_layer == local.by_layer
    # By whichever of its names: what is remembered is the content's.
    assert norms_of(store, tmp_path / "norms").bytes_read == 0
    assert norms_of(f"{store}/{INDEX}", tmp_path / "norms").bytes_read == 0


def test_a_store_written_anew_never_meets_old_norms(store: str, tmp_path: Path) -> None:
    old = norms_of(store, tmp_path / "norms")
    for name, data in model_files(seed=1).items():
        fsspec.filesystem("memory").pipe_file(f"/bucket/model/{name}", data)
    assert norms_of(store, tmp_path / "norms").bytes_read == old.bytes_read


def test_a_store_written_anew_while_it_is_read_is_an_error(store: str) -> None:
    with open_base(store) as base:
        fsspec.filesystem("memory").pipe_file(f"/bucket/model/{FIRST}", model_files(seed=1)[FIRST])
        with pytest.raises(TransferError, match="changed while it was read"):
            base.tensor("model.layers.0.mlp.up_proj.weight").read()


def test_an_address_that_nothing_can_read_says_what_is_missing() -> None:
    with pytest.raises(GradienceError, match="nosuch"):
        open_base("nosuch://bucket/model")
    with pytest.raises(GradienceError, match="memory://nothing/here"):
        open_base("memory://nothing/here")


@pytest.mark.parametrize(
    "address", ["https://host:bad/x", "http://[::1", "https:///x", "http://a b/", "http://h:99999/"]
)
def test_what_is_no_address_is_refused_at_once(address: str) -> None:
    with pytest.raises(BaseModelError, match="that is no address"):
        open_base(address)


def test_a_server_that_is_not_there_is_said_to_be(tmp_path: Path) -> None:
    before = monotonic()
    with pytest.raises(BaseModelError, match="the connection failed"):
        open_base("http://127.0.0.1:1/m.safetensors")
    assert monotonic() - before < 2.5  # a server that is there and stumbles gets longer


def test_dora_is_measured_beside_a_base_elsewhere_as_beside_one_here(
    hub: Hub, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    weights, factors = {}, {}
    for name in ("up_proj", "down_proj"):
        W = rng.standard_normal((48, 48), dtype=np.float32)
        weights[f"model.layers.0.mlp.{name}.weight"] = W
        stem = f"base_model.model.model.layers.0.mlp.{name}"
        factors[f"{stem}.lora_A.weight"] = rng.standard_normal((2, 48), dtype=np.float32)
        factors[f"{stem}.lora_B.weight"] = rng.standard_normal((48, 2), dtype=np.float32)
        factors[f"{stem}.lora_magnitude_vector.weight"] = np.linalg.norm(W, axis=1)
    (tmp_path / "adapter").mkdir()
    save_file(factors, tmp_path / "adapter" / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "use_dora": True}
    config["target_modules"] = ["up_proj", "down_proj"]
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    hub.repos["org/m"] = Repo({"model.safetensors": save(weights)})
    save_file(weights, tmp_path / "model.safetensors")
    here, there = (
        audit_lora_peft_dir(
            tmp_path / "adapter",
            base_model_id=base,
            base_norms_cache=tmp_path / cache,
            use_cache=False,
        )
        for base, cache in ((tmp_path / "model.safetensors", "a"), (folder(hub), "b"))
    )
    assert [layer.metrics for layer in there.layers] == [layer.metrics for layer in here.layers]
    assert [layer.spectrum_of for layer in there.layers] == ["change", "change"]
    # Once for its norm, once for its change: what the limit counts.
    assert len(spans(hub, "model.safetensors")) == 4


def test_a_store_whose_package_is_not_installed_says_which() -> None:
    pytest.importorskip("fsspec")
    try:
        import s3fs  # noqa: F401, PLC0415
    except ImportError:
        with pytest.raises(MissingExtraError, match="s3fs"):
            open_base("s3://bucket/model")
    else:
        pytest.skip("s3fs is installed")


def test_whole_files_are_refused_where_nobody_is_asked() -> None:
    files = WholeFiles(model="org/m", names=("a.bin", "b.bin"), nbytes=10**9, into=Path("/hub"))
    with pytest.raises(DownloadRefusedError, match="2 files of 1"):
        Terms().approve(files)
