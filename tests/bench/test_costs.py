"""What a trial will cost, and whether the test could tell."""

from pathlib import Path

import msgspec
import pytest

from factories_driver import FakeExecutor, changed, make_project, settings_of
from gradience.audit.base.weights import TensorFacts
from gradience.bench.driver.progress import whole_left
from gradience.bench.ledger import Ledger, Stage
from gradience.bench.plan.costs import Shapes, adapted, cost
from gradience.bench.plan.forecast import Forecast, forecast
from gradience.bench.plan.forecast_report import page
from gradience.bench.plan.measure import Seen, estimate, of_probe
from gradience.bench.plan.prepare import prepare
from gradience.bench.plan.trials import variants
from gradience.bench.run import RunOptions, run_bench
from gradience.bench.settings import BenchSettings, LoraSettings
from gradience.errors import UsageError

TENSORS = {
    "layers.0.q_proj.weight": TensorFacts(shape=(64, 32), dtype="F32"),
    "layers.0.v_proj.weight": TensorFacts(shape=(16, 32), dtype="F32"),
    "layers.0.norm.weight": TensorFacts(shape=(32,), dtype="F32"),
    "embed_tokens.weight": TensorFacts(shape=(1000, 32), dtype="F32"),
    "lm_head.weight": TensorFacts(shape=(1000, 32), dtype="F32"),
}


@pytest.mark.parametrize(
    ("targets", "modules", "per_rank"),
    [
        (("q_proj",), 1, 96),
        (("q_proj", "v_proj"), 2, 144),
        (("proj",), 0, 0),  # PEFT compares whole parts of a name
        (r".*\.[qv]_proj", 2, 144),
        (r"layers\.0\.q_proj", 1, 96),
        ("all-linear", 2, 144),
    ],
)
def test_the_weights_that_change_are_those_of_pefts_rule(
    targets: tuple[str, ...] | str, modules: int, per_rank: int
) -> None:
    found = adapted(LoraSettings(rank=8, alpha=8, targets=targets), TENSORS)
    assert (found.modules, found.per_rank) == (modules, per_rank)
    assert found.exact == (targets != "all-linear")


@pytest.fixture
def settings(tmp_path: Path) -> BenchSettings:
    return settings_of(make_project(tmp_path))


def test_factor_bytes_follow_from_shapes(settings: BenchSettings) -> None:
    shapes = Shapes(modules=4, per_rank=128)
    of = {
        v.name: cost(v, lora=settings.lora, shapes=shapes, results=(), items=0)
        for v in variants(settings)
    }
    record = of["truncate-r4"].kept - 128 * 4 * 4
    assert of["truncate-r2"].kept - record == 128 * 2 * 4
    assert of["probe"].kept - record == 2 * 128 * 8 * 4  # its step-0 adapter is kept too
    assert of["control-bf16"].kept - record == 128 * 8 * 2
    assert all(found.seconds is None for found in of.values())


def predicted(settings: BenchSettings, out: Path, **other: object) -> Forecast:
    prepared = prepare(settings, out)
    given = {"slots": 1, "binary": True, **other}
    return forecast(
        prepared.bench,
        results=Ledger(out).results(prepared.bench.trials),
        shapes=prepared.shapes,
        items=prepared.items,
        **given,
    )


def test_time_is_unknown_before_anything_ran_and_measured_afterwards(
    settings: BenchSettings, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    before = predicted(settings, out)
    assert before.seconds is None
    assert any("Time" in told for told in before.unknown)
    run_bench(settings, out, RunOptions(executor=FakeExecutor()))
    more = predicted(changed(settings, seeds=(0, 1, 2)), out, slots=2)
    assert more.seconds == pytest.approx(8 * 1.0 / 2)  # a seed of eight trials of a second, by two
    assert sum(row.done for row in more.rows) == 16
    assert not out.joinpath("bench.json").exists()


def test_a_dry_run_writes_nothing(settings: BenchSettings, tmp_path: Path) -> None:
    predicted(settings, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_power_is_that_of_the_plan_with_its_assumptions(
    settings: BenchSettings, tmp_path: Path
) -> None:
    power = predicted(settings, tmp_path / "out").power
    assert power is not None
    assert (power.items, power.seeds, power.level) == (20, 2, 0.025)
    assert power.power < power.asked
    text = " ".join(str(part) for part in page(predicted(settings, tmp_path / "out")))
    assert "likely to be UNDERPOWERED" in text
    assert predicted(settings, tmp_path / "out", binary=False).power is None


def test_one_seed_is_told_to_be_too_few_whatever_the_items(
    settings: BenchSettings, tmp_path: Path
) -> None:
    alone = predicted(changed(settings, seeds=(0,)), tmp_path / "out")
    text = " ".join(str(part) for part in page(alone))
    assert "1 seed at a level" in text
    assert "nothing can be SAFE: name three seeds or more" in text
    assert "add test items" not in text


def test_targets_that_name_no_weight_are_refused_before_training(
    settings: BenchSettings, tmp_path: Path
) -> None:
    lora = LoraSettings(rank=8, alpha=8, targets=("qurey",))
    with pytest.raises(UsageError) as caught:
        prepare(changed(settings, lora=lora), tmp_path / "out")
    assert caught.value.remedy == "Did you mean 'query'?"


def test_a_target_without_a_weight_is_named_before_and_while_the_others_train(
    settings: BenchSettings, tmp_path: Path
) -> None:
    lora = msgspec.structs.replace(settings.lora, targets=(*settings.lora.targets, "qurey"))
    said = "no weight of the model is named 'qurey'"
    mistyped = changed(settings, lora=lora)
    assert said in predicted(mistyped, tmp_path / "out").unknown[0]
    assert not any(said in told for told in predicted(settings, tmp_path / "out").unknown)
    notices: list[str] = []
    run_bench(
        mistyped, tmp_path / "out", RunOptions(executor=FakeExecutor(), notice=notices.append)
    )
    assert said in notices[0]


def seen(*stages: tuple[float, str, int, int]) -> list[Seen]:
    return [Seen(at=at, stage=Stage(stage=s, done=d, total=t)) for at, s, d, t in stages]


def test_a_timed_start_tells_the_time_of_each_action(settings: BenchSettings, tmp_path) -> None:
    bench = prepare(settings, tmp_path / "out").bench
    looked = seen(
        (5.0, "train", 0, 100), (15.0, "train", 100, 100), (16.0, "evaluate", 0, 40),
        (20.0, "evaluate", 20, 40), (24.0, "evaluate", 40, 40), (25.0, "evaluate", 0, 40),
    )  # fmt: skip
    found = estimate(bench, looked)
    assert found["truncate"] == pytest.approx(5 + 8)
    assert found["heal"] == pytest.approx(5 + 8 + 1)
    assert found["probe"] == pytest.approx(5 + 10 + 2 * 8)


def test_a_start_that_was_stopped_too_early_tells_nothing(
    settings: BenchSettings, tmp_path: Path
) -> None:
    bench = prepare(settings, tmp_path / "out").bench
    assert estimate(bench, seen((5.0, "train", 0, 100))) == {}
    assert estimate(bench, []) == {}


def test_a_probe_that_was_done_in_the_time_tells_everything(
    settings: BenchSettings, tmp_path: Path
) -> None:
    bench = prepare(settings, tmp_path / "out").bench
    run_bench(settings, tmp_path / "out", RunOptions(executor=FakeExecutor()))
    probe = Ledger(tmp_path / "out").result(bench.trials[0])  # a second, half of it training
    assert probe is not None
    found = of_probe(bench, probe)
    assert found["probe"] == 1.0
    assert found["truncate"] == found["bf16"] == 0.5
    assert found["heal"] == pytest.approx(0.55)


def test_time_left_is_shared_by_the_slots_and_says_what_it_leaves_out() -> None:
    assert whole_left({"a": 10.0, "b": 10.0}, {"c": 4.0}, 2) == (12.0, False)
    assert whole_left({}, {"c": 30.0, "d": 1.0}, 2) == (30.0, False)
    assert whole_left({"a": None, "b": 10.0}, {}, 1) == (10.0, True)
    assert whole_left({"a": None}, {}, 1) == (None, True)
    assert whole_left({}, {}, 1) == (0.0, False)


def test_a_dry_run_names_the_adapters_that_the_budget_will_take(
    settings: BenchSettings, tmp_path: Path
) -> None:
    prepared = prepare(settings, tmp_path / "out")

    def within(budget: int | None) -> Forecast:
        return forecast(
            prepared.bench,
            results=(),
            shapes=Shapes(modules=4, per_rank=100_000),
            items=20,
            slots=1,
            binary=True,
            budget=budget,
        )

    kept = within(None).kept
    assert kept is not None
    assert within(None).removed == within(kept).removed == {}
    few = within(kept - 1)
    assert sum(few.removed.values()) == 1
    assert next(iter(few.removed)).startswith("control-")
    assert "control-" in " ".join(part.text for part in page(few) if hasattr(part, "text"))
    assert within(kept // 3).removed["truncate-r4"] == 2  # controls alone are not enough
    assert within(1000).over > 0
