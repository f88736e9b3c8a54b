"""Norms that travel: what was exported is believed elsewhere, and nothing that is wrong is."""

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from factories_bases import decoder_shapes, layers_of, write_base
from gradience.audit.base.devices import ON_CPU
from gradience.audit.base.known import Settings
from gradience.audit.base.norms import BaseNorms, base_norms
from gradience.audit.base.norms_only import GivenNorms
from gradience.audit.base.source import open_base
from gradience.audit.base.spectral_norm import Goal
from gradience.audit.norms import keep, library, travel
from gradience.audit.norms.matrices import matrices
from gradience.audit.norms.verify import Check, verify
from gradience.errors import ArtifactError, BaseModelError, UsageError

NOW = datetime(2026, 11, 26, tzinfo=UTC)


def measured(base_path: Path, cache: Path) -> keep.Kept:
    with open_base(base_path) as base:
        return keep.measure_base(base, Settings(cache, NOW))


def exported(base_path: Path, place: Path) -> Path:
    path = place / "norms.json"
    travel.export(path, library.read(measured(base_path, place / "cache").path), now=NOW)
    return path


def beside(base: Any, given: GivenNorms | None, cache: Path, **options: Any) -> BaseNorms:
    layers = layers_of(decoder_shapes())
    return base_norms(layers, base, Settings(cache, NOW, given=given, **options))


@pytest.fixture
def base_path(tmp_path: Path) -> Path:
    write_base(tmp_path / "base", decoder_shapes(hidden=80))
    return tmp_path / "base"


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    write_base(tmp_path / "tiny", decoder_shapes())
    return tmp_path / "tiny"


def edited(path: Path, change: Any) -> Path:
    document = json.loads(path.read_text())
    change(document["content"])
    path.write_text(json.dumps(document))
    return path


def with_norms(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A file whose every norm was changed."""
    return edited(path, lambda content: [change(norm) for norm in content["norms"].values()])


def codes(found: BaseNorms) -> list[str]:
    return [finding.code for finding in found.findings]


def numbers(found: BaseNorms) -> dict[str, tuple[float, float, float]]:
    return {label: (n.lower, n.upper, n.frobenius) for label, n in found.by_layer.items()}


def test_an_adapter_has_the_same_norms_without_its_base_as_with_it(
    tiny: Path, tmp_path: Path
) -> None:
    given = travel.fetch(exported(tiny, tmp_path))
    without = beside(given.base(), given, tmp_path / "empty")
    with open_base(tiny) as base:
        own = base_norms(layers_of(decoder_shapes()), base, Settings(tmp_path / "own", NOW))
    assert numbers(without) == numbers(own)
    assert without.unmatched == {}
    assert without.fingerprint == own.fingerprint
    assert without.bytes_read == 0
    assert not without.has_weights


def test_with_the_base_at_hand_nothing_that_was_brought_is_measured_again(
    tiny: Path, tmp_path: Path
) -> None:
    given = travel.fetch(exported(tiny, tmp_path))
    with open_base(tiny) as base:
        given.check_same(base)
        found = beside(base, given, tmp_path / "empty")
        assert found.bytes_read == 0
        finer = beside(base, given, tmp_path / "empty", goal=Goal(width=1e-6))
    assert finer.bytes_read > 0


def test_a_weight_without_a_norm_has_its_reason(tiny: Path, tmp_path: Path) -> None:
    name = "model.layers.0.mlp.up_proj"
    path = edited(exported(tiny, tmp_path), lambda c: c["norms"].pop(f"{name}.weight"))
    given = travel.fetch(path)
    found = beside(given.base(), given, tmp_path / "empty")
    assert set(found.unmatched) == {name}
    assert str(path) in found.unmatched[name]
    (missing,) = [f for f in found.findings if f.code == "base_norms_missing"]
    assert missing.modules == (name,)
    assert "base_weights_unmeasurable" not in codes(found)


def test_norms_of_another_base_are_refused(tiny: Path, tmp_path: Path) -> None:
    given = travel.fetch(exported(tiny, tmp_path))
    write_base(tmp_path / "other", decoder_shapes(), seed=1)
    with (
        open_base(tmp_path / "other") as base,
        pytest.raises(BaseModelError, match="holds norms of tiny"),
    ):
        given.check_same(base)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c["norms"]["model.layers.0.mlp.up_proj.weight"].update(upper=1e9), "above"),
        (lambda c: c["norms"]["model.layers.0.mlp.up_proj.weight"].update(lower="x"), "str"),
        (lambda c: c.update(method="guess/1"), "computed by guess/1"),
        (lambda c: c.pop("fingerprint"), "fingerprint"),
        (lambda c: c.update(fingerprint="blake3:../../.."), "its fingerprint is"),
        (lambda c: c["norms"]["model.layers.0.mlp.up_proj.weight"].update(eta=0.0), "eta 0"),
        (lambda c: c["norms"]["model.layers.0.mlp.up_proj.weight"].update(width=0.0), "width of 0"),
        (
            lambda c: c["norms"]["model.layers.0.mlp.up_proj.weight"].update(shape=[10**400] * 2),
            "has that shape",
        ),
    ],
)
def test_a_file_that_is_wrong_in_one_place_is_not_believed_in_any(
    tiny: Path, tmp_path: Path, change: Any, says: str
) -> None:
    path = edited(exported(tiny, tmp_path), change)
    with pytest.raises(ArtifactError, match=says):
        travel.fetch(path)


def test_what_is_no_file_of_norms_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"x\.json"):
        travel.fetch(tmp_path / "x.json")
    with pytest.raises(ArtifactError, match="no such file"):
        travel.fetch("no/such/file")
    with pytest.raises(ArtifactError, match="no such file"):
        travel.fetch("word")


def test_a_directory_that_carries_norms_is_one_place_to_have_them_from(
    tiny: Path, tmp_path: Path
) -> None:
    with pytest.raises(ArtifactError, match="is a directory without base_norms") as caught:
        travel.fetch(tiny)
    assert "--base-model" in caught.value.remedy
    exported(tiny, tmp_path).rename(tiny / "base_norms.json")
    assert travel.fetch(tiny).source == f"{tiny}/base_norms.json"


def test_norms_come_from_a_url(tiny: Path, tmp_path: Path) -> None:
    data = exported(tiny, tmp_path).read_bytes()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            there = self.path == "/norms.json"
            self.send_response(200 if there else 404)
            self.send_header("Content-Length", str(len(data) if there else 0))
            self.end_headers()
            if there:
                self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    told: list[str] = []
    try:
        given = travel.fetch(f"{url}/norms.json", notice=told.append)
        with pytest.raises(ArtifactError, match="404"):
            travel.fetch(f"{url}/absent.json")
    finally:
        server.shutdown()
        server.server_close()
    assert len(given.norms) == len(matrices(given.base().tensors)[0])
    assert told == [f"fetching {url}/norms.json"]


def test_what_was_brought_serves_the_next_audit(tiny: Path, tmp_path: Path) -> None:
    given = travel.fetch(exported(tiny, tmp_path))
    kept = keep.bring(given, tmp_path / "cache2", now=NOW)
    assert kept.weights == len(given.norms)
    with open_base(tiny) as base:
        found = base_norms(layers_of(decoder_shapes()), base, Settings(tmp_path / "cache2", NOW))
    assert found.bytes_read == 0


def test_norms_that_nobody_checked_are_said_to_be_so_until_somebody_does(
    tiny: Path, tmp_path: Path
) -> None:
    path = exported(tiny, tmp_path)
    given = travel.fetch(path)
    alone = beside(given.base(), given, tmp_path / "empty")
    assert codes(alone) == ["base_norms_unchecked"]
    assert str(path) in alone.findings[0].message
    keep.bring(given, tmp_path / "cache2", now=NOW)
    with open_base(tiny) as base:
        recalled = beside(base, None, tmp_path / "cache2")
        assert codes(recalled) == ["base_norms_unchecked"]
        assert recalled.bytes_read == 0
        how = Check(sample=None, seed=1, devices=ON_CPU)
        kept = keep.bring_checked(given, base, how, tmp_path / "cache2", now=NOW)
        assert (kept.weights, kept.unchecked) == (len(given.norms), 0)
        assert codes(beside(base, None, tmp_path / "cache2")) == []
    # Checked ones are used where the same file is named again.
    assert codes(beside(given.base(), given, tmp_path / "cache2")) == []


def test_only_the_norms_of_a_sample_that_agreed_count_as_checked(
    tiny: Path, tmp_path: Path
) -> None:
    path = exported(tiny, tmp_path)
    given = travel.fetch(path)
    total = len(given.norms)
    cache = tmp_path / "cache2"

    def told_by() -> dict[str, str]:
        norms = library.read(kept.path).norms
        return {key: norm.get("told_by", "") for key, norm in norms.items()}

    with open_base(tiny) as base:
        kept = keep.bring_checked(
            given, base, Check(sample=3, seed=1, devices=ON_CPU), cache, now=NOW
        )
        assert kept.verification is not None
        sample = {check.key for check in kept.verification.checked}
        assert {key for key, source in told_by().items() if not source} == sample
        assert set(told_by().values()) == {"", str(path)}
        assert (len(sample), kept.weights, kept.unchecked) == (3, total, total - 3)
        # A further sample, drawn from what is in the cache: its file stays the one that told it.
        own = travel.fetch(kept.path)
        kept = keep.bring_checked(
            own, base, Check(sample=3, seed=2, devices=ON_CPU), cache, now=NOW
        )
        assert kept.verification is not None
        sample |= {check.key for check in kept.verification.checked}
        assert {key for key, source in told_by().items() if not source} == sample
        assert set(told_by().values()) == {"", str(path)}
        found = beside(base, None, cache)
    (finding,) = [f for f in found.findings if f.code == "base_norms_unchecked"]
    unchecked = {label for label, norm in found.by_layer.items() if norm.told_by}
    assert set(finding.modules) == unchecked
    assert f"the other {len(unchecked)} stand on the word of {path}" in finding.message
    assert finding.remedy.endswith("--all")


def test_a_norm_told_of_a_weight_that_has_none_is_gone_once_it_is_measured(tmp_path: Path) -> None:
    whole, broken = (f"model.layers.{at}.mlp.up_proj.weight" for at in range(2))
    tensors = write_base(tmp_path / "base", decoder_shapes())
    tensors[broken][0, 0] = np.nan
    save_file(tensors, tmp_path / "base" / "model.safetensors")
    path = exported(tmp_path / "base", tmp_path)

    def tell(content: dict[str, Any]) -> None:
        del content["unmeasurable"][broken]
        content["norms"][broken] = content["norms"][whole]
        content["unmeasurable"][whole] = "it is said to have none, and has one"

    keep.bring(travel.fetch(edited(path, tell)), tmp_path / "team", now=NOW)
    kept = measured(tmp_path / "base", tmp_path / "team")
    assert list(kept.told_wrong) == [broken]
    assert (kept.replaced, kept.weights, kept.unmeasurable) == (15, 14, 1)
    assert kept.path is not None
    content = library.read(kept.path)
    assert broken not in content.norms
    assert broken in content.unmeasurable


def test_a_weight_that_a_file_says_has_no_norm_is_measured_where_it_can_be(
    tiny: Path, tmp_path: Path
) -> None:
    key = "model.layers.0.mlp.up_proj.weight"
    path = exported(tiny, tmp_path)

    def tell(content: dict[str, Any]) -> None:
        del content["norms"][key]
        content["unmeasurable"][key] = "it is said to have none, and has one"

    given = travel.fetch(edited(path, tell))
    without = beside(given.base(), given, tmp_path / "empty")
    assert without.unmatched[key.removesuffix(".weight")] == "it is said to have none, and has one"
    assert "base_weights_unmeasurable" in codes(without)
    with open_base(tiny) as base:
        assert beside(base, given, tmp_path / "empty").unmatched == {}
    keep.bring(given, tmp_path / "team", now=NOW)
    with open_base(tiny) as base:
        assert beside(base, None, tmp_path / "team").unmatched == {}
    keep.bring(given, tmp_path / "others", now=NOW)
    kept = measured(tiny, tmp_path / "others")
    assert (kept.weights, kept.unmeasurable) == (15, 0)


def test_a_file_does_not_get_its_way_by_claiming_to_be_finer(tiny: Path, tmp_path: Path) -> None:
    """Norms that were measured here win over those that a file tells, whatever width it claims."""
    measured(tiny, tmp_path / "cache2")

    def double(content: Any) -> None:
        for norm in content["norms"].values():
            norm["width"] = 1e-9
            for name in ("lower", "upper", "frobenius"):
                norm[name] *= 2.0

    given = travel.fetch(edited(exported(tiny, tmp_path), double))
    keep.bring(given, tmp_path / "cache2", now=NOW)
    with open_base(tiny) as base:
        own = beside(base, None, tmp_path / "own")
        found = beside(base, given, tmp_path / "cache2")
    assert found.by_layer == own.by_layer
    assert codes(found) == []


def test_wrong_norms_with_the_right_fingerprint_are_not_brought_beside_the_base(
    tiny: Path, tmp_path: Path
) -> None:
    """A fingerprint in a file is a claim like its numbers."""

    def double(content: Any) -> None:
        for norm in content["norms"].values():
            for name in ("lower", "upper", "frobenius"):
                norm[name] *= 2.0

    given = travel.fetch(edited(exported(tiny, tmp_path), double))
    with open_base(tiny) as base:
        how = Check(seed=1, devices=ON_CPU)
        kept = keep.bring_checked(given, base, how, tmp_path / "cache2", now=NOW)
    assert kept.path is None
    assert kept.verification is not None
    assert kept.verification.same_base
    assert not kept.verification.numbers_agree
    assert library.listing(tmp_path / "cache2").entries == ()


def test_where_norms_came_from_is_kept_and_does_not_travel(tiny: Path, tmp_path: Path) -> None:
    path = exported(tiny, tmp_path)
    kept = keep.bring(travel.fetch(path), tmp_path / "cache2", now=NOW)
    assert {n["told_by"] for n in library.read(kept.path).norms.values()} == {str(path)}
    (entry,) = library.listing(tmp_path / "cache2").entries
    assert entry.unchecked == entry.weights
    travel.export(tmp_path / "again.json", library.read(kept.path), now=NOW)
    assert "told_by" not in (tmp_path / "again.json").read_text()
    with pytest.raises(UsageError, match="in the cache already"):
        keep.bring(travel.fetch(kept.path), tmp_path / "cache2", now=NOW)


def test_an_interval_much_wider_than_asked_is_said(tiny: Path, tmp_path: Path) -> None:
    name = "model.layers.0.mlp.up_proj"

    def loosen(content: Any) -> None:
        content["norms"][f"{name}.weight"]["lower"] *= 0.98

    given = travel.fetch(edited(exported(tiny, tmp_path), loosen))
    found = beside(given.base(), given, tmp_path / "empty")
    (wide,) = [f for f in found.findings if f.code == "base_norms_wide"]
    assert wide.modules == (name,)
    assert "0.001" in wide.message
    coarse = beside(given.base(), given, tmp_path / "empty", goal=Goal(width=0.01))
    assert "base_norms_wide" not in codes(coarse)


def test_every_matrix_of_a_base_is_measured_and_stacked_experts_one_by_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tensors = {
        "m.experts.gate_up_proj": rng.standard_normal((3, 6, 4)),
        "conv.weight": rng.standard_normal((5, 4, 3, 3)),
        "norm.weight": rng.standard_normal(7),
        "ids": np.arange(6).reshape(2, 3),
        "q.weight": rng.standard_normal((4, 4)),
        "p.qweight": rng.integers(0, 9, (4, 4), dtype=np.int8),
    }
    (tmp_path / "base").mkdir()
    save_file(tensors, tmp_path / "base" / "model.safetensors")
    kept = measured(tmp_path / "base", tmp_path / "cache")
    norms = library.read(kept.path).norms
    experts = {f"m.experts.gate_up_proj[{k}]" for k in range(3)}
    assert set(norms) == {*experts, "conv.weight", "q.weight"}
    assert norms["conv.weight"]["shape"] == [5, 36]
    assert list(kept.left_out) == ["p.qweight"]
    truth = np.linalg.norm(tensors["m.experts.gate_up_proj"][1], 2)
    assert norms["m.experts.gate_up_proj[1]"]["lower"] == pytest.approx(truth)


def test_a_base_that_is_written_to_meanwhile_has_no_norms(tiny: Path, tmp_path: Path) -> None:
    write_base(tmp_path / "other", decoder_shapes(), seed=1)
    other = (tmp_path / "other" / "model.safetensors").read_bytes()
    with open_base(tiny) as base:
        with (tiny / "model.safetensors").open("r+b") as file:
            file.write(other)
        with pytest.raises(BaseModelError, match="written to while it was read"):
            keep.measure_base(base, Settings(tmp_path / "cache", NOW))
    assert library.listing(tmp_path / "cache").entries == ()


def test_a_base_that_is_replaced_meanwhile_is_measured_as_it_was(
    tiny: Path, tmp_path: Path
) -> None:
    expected = library.read(measured(tiny, tmp_path / "expected").path)
    write_base(tmp_path / "other", decoder_shapes(), seed=1)
    with open_base(tiny) as base:
        (tmp_path / "other" / "model.safetensors").replace(tiny / "model.safetensors")
        kept = keep.measure_base(base, Settings(tmp_path / "cache", NOW))
    assert library.read(kept.path).norms == expected.norms


# --- checking --------------------------------------------------------------------------------


def check(path: Path, base_path: Path, **options: Any) -> Any:
    how = Check(**{"seed": 1, "devices": ON_CPU, **options})
    with open_base(base_path) as base:
        return verify(travel.fetch(path), base, how)


def test_right_norms_are_verified_and_proved(base_path: Path, tmp_path: Path) -> None:
    found = check(exported(base_path, tmp_path), base_path, prove=3)
    assert found.same_base
    assert found.numbers_agree
    assert len(found.checked) == 8
    assert sum(one.proved is True for one in found.checked) == 3
    assert {one.outcome for one in found.checked} == {"agrees"}


def test_a_matrix_of_one_row_is_proved_though_its_bound_is_its_norm(tmp_path: Path) -> None:
    write_base(tmp_path / "base", {"score.weight": (1, 4096), "model.proj.weight": (64, 4096)})
    found = check(exported(tmp_path / "base", tmp_path), tmp_path / "base", prove=2)
    assert [one.proved for one in found.checked] == [True, True]
    assert found.numbers_agree


def test_another_seed_is_another_sample(base_path: Path, tmp_path: Path) -> None:
    path = exported(base_path, tmp_path)
    one, other = (check(path, base_path, sample=3, seed=seed) for seed in (1, 2))
    assert [c.key for c in one.checked] != [c.key for c in other.checked]
    assert one == check(path, base_path, sample=3, seed=1)


def test_a_number_that_was_changed_is_found_and_not_proved(base_path: Path, tmp_path: Path) -> None:
    def lowered(norm: dict[str, Any]) -> None:
        norm["lower"] *= 0.99
        norm["upper"] = norm["lower"] * 1.0001

    found = check(with_norms(exported(base_path, tmp_path), lowered), base_path, prove=1)
    assert not found.numbers_agree
    assert {c.outcome for c in found.checked} == {"disagrees"}
    assert [c.proved for c in found.checked].count(False) == 1


def test_a_frobenius_norm_that_was_changed_is_found(base_path: Path, tmp_path: Path) -> None:
    def more(norm: dict[str, Any]) -> None:
        norm["frobenius"] *= 1 + 1e-7

    found = check(with_norms(exported(base_path, tmp_path), more), base_path)
    assert "Frobenius" in found.checked[0].reason
    assert not found.numbers_agree


def test_an_interval_that_holds_the_norm_and_says_nothing_is_found(
    base_path: Path, tmp_path: Path
) -> None:
    def loosen(norm: dict[str, Any]) -> None:
        norm["lower"] *= 1e-6

    found = check(with_norms(exported(base_path, tmp_path), loosen), base_path)
    assert "wider than the 0.001" in found.checked[0].reason
    assert not found.numbers_agree


def test_a_rounding_error_of_a_weight_that_is_not_packed_is_found(
    base_path: Path, tmp_path: Path
) -> None:
    def round_off(norm: dict[str, Any]) -> None:
        norm["rounding"] = 5.0

    found = check(with_norms(exported(base_path, tmp_path), round_off), base_path)
    assert "rounding" in found.checked[0].reason
    assert not found.numbers_agree


def test_a_copy_of_the_same_weights_has_right_numbers_and_other_files(
    base_path: Path, tmp_path: Path
) -> None:
    path = exported(base_path, tmp_path)
    tensors = write_base(tmp_path / "copy", decoder_shapes(hidden=80))
    save_file(tensors, tmp_path / "copy" / "model.safetensors", metadata={"saved": "again"})
    found = check(path, tmp_path / "copy")
    assert found.numbers_agree
    assert not found.same_base


def test_a_base_of_another_shape_has_no_such_weights(base_path: Path, tmp_path: Path) -> None:
    path = exported(base_path, tmp_path)
    write_base(tmp_path / "other", decoder_shapes(hidden=96))
    found = check(path, tmp_path / "other")
    assert {c.outcome for c in found.checked} == {"absent"}
    assert not found.numbers_agree


# --- naming ----------------------------------------------------------------------------------


def test_a_model_is_found_by_its_name_and_the_start_of_its_fingerprint(
    tiny: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    path = measured(tiny, cache).path
    fingerprint = library.read(path).fingerprint
    for text in ("tiny", "TINY", fingerprint, fingerprint[:20], fingerprint[7:17], str(path)):
        assert str(library.find(cache, text)) == path
    with pytest.raises(UsageError, match="keeps none of such a model"):
        library.find(cache, "other")
    write_base(tmp_path / "again" / "tiny", decoder_shapes(), seed=1)
    measured(tmp_path / "again" / "tiny", cache)
    with pytest.raises(UsageError, match="tiny may be") as caught:
        library.find(cache, "tiny")
    named_in_the_hint = caught.value.remedy.rpartition(" ")[2]
    assert library.find(cache, named_in_the_hint).parent == cache


def test_of_one_content_under_two_names_the_one_that_is_said_is_meant(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    write_base(tmp_path / "v1", decoder_shapes())
    (tmp_path / "copy").symlink_to("v1")
    paths = {name: measured(tmp_path / name, cache).path for name in ("v1", "copy")}
    for name, path in paths.items():
        assert str(library.find(cache, str(tmp_path / name))) == path
        assert str(library.find(cache, name)) == path
        assert str(library.find(cache, Path(path).name)) == path
    (tmp_path / "third").symlink_to("v1")
    with pytest.raises(UsageError, match="may be") as caught:
        library.find(cache, str(tmp_path / "third"))
    assert caught.value.remedy.rpartition(" ")[2] in {Path(path).name for path in paths.values()}


def test_norms_of_what_was_in_a_directory_before_are_not_taken_for_those_of_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.chdir(tmp_path)
    write_base(tmp_path / "tiny", decoder_shapes())
    path = Path(measured(Path("tiny"), cache).path)
    write_base(tmp_path / "tiny", decoder_shapes(), seed=1)
    with pytest.raises(UsageError, match="of another content") as caught:
        library.find(cache, "tiny")
    assert path.name in caught.value.remedy
    (tmp_path / "tiny" / "model.safetensors").unlink()
    assert library.find(cache, "tiny") == path


@pytest.mark.parametrize("text", ["tinny", "nosuch", "no/such.json"])
def test_what_can_be_neither_kept_nor_elsewhere_is_held_against_what_is_kept(
    tiny: Path, tmp_path: Path, text: str
) -> None:
    measured(tiny, tmp_path / "cache")
    with pytest.raises(UsageError, match="keeps none of such a model") as caught:
        library.in_cache(tmp_path / "cache", text)
    assert "tiny" in caught.value.remedy
    for elsewhere in ("org/norms", "org/norms@main", "https://example.org/n.json"):
        assert library.in_cache(tmp_path / "cache", elsewhere) == elsewhere


def test_a_name_that_is_nearly_one_is_asked_back(tiny: Path, tmp_path: Path) -> None:
    path = measured(tiny, tmp_path / "cache").path
    for text, remedy in (
        ("tinny", "Did you mean tiny?"),
        (str(Path(path).with_name("tiny-0.json")), f"Did you mean {path}?"),
        ("org/other", "gradience norms measure org/other"),
        ("qqqq.json", "Check the path. Kept are: tiny."),
    ):
        with pytest.raises(UsageError) as caught:
            library.find(tmp_path / "cache", text)
        assert remedy in caught.value.remedy


def test_a_revision_stays_with_its_model(tiny: Path, tmp_path: Path) -> None:
    content = travel.renamed(library.read(measured(tiny, tmp_path / "cache").path), "org/a@r1")
    assert (content.model, content.revision) == ("org/a", "r1")
    assert travel.renamed(content, "org/a").revision == "r1"
    assert travel.renamed(content, "org/b").revision is None


def test_a_text_too_long_for_a_path_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="keeps none of such a model"):
        library.find(tmp_path, "a" * 300)


def test_a_damaged_file_is_listed_as_what_it_is(tiny: Path, tmp_path: Path) -> None:
    measured(tiny, tmp_path / "cache")
    (tmp_path / "cache" / "bad.json").write_text("{")
    found = library.listing(tmp_path / "cache")
    assert [entry.model for entry in found.entries] == ["tiny"]
    assert [odd.name for odd in found.unreadable] == ["bad.json"]
    assert library.listing(tmp_path / "absent").entries == ()
