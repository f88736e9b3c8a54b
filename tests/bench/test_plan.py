"""Settings to trials: which, in what order, and what an id depends on."""

from pathlib import Path

import msgspec
import pytest

from factories_driver import changed, make_project, settings_of
from gradience.bench.plan.trials import CONTROLS, Determinants, content_key, plan, variants
from gradience.bench.records import Trial
from gradience.bench.settings import BenchSettings, LadderSettings


@pytest.fixture
def settings(tmp_path: Path) -> BenchSettings:
    return settings_of(make_project(tmp_path))


def facts(settings: BenchSettings, **other: object) -> Determinants:
    data = {name: f"blake3:{Path(name).stem}" for name in settings.task.train + settings.task.test}
    given = {"base": "b", "data": data, "versions": {"torch": "2"}, "code": "c", "device": "cpu"}
    return Determinants(**{**given, **other})


def ids(settings: BenchSettings, **other: object) -> dict[str, str]:
    return {t.name: t.id for t in plan(settings, facts(settings, **other))}


def variant(settings: BenchSettings, name: str):
    return next(v for v in variants(settings) if v.name == name)


def test_every_seed_has_its_probe_first_and_every_other_trial_needs_it(
    settings: BenchSettings,
) -> None:
    trials = plan(settings, facts(settings))
    assert len({trial.id for trial in trials}) == len(trials)
    probe: Trial | None = None
    for trial in trials:
        if trial.spec.variant.name == "probe":
            probe = trial
            assert trial.needs == ()
        else:
            assert probe is not None
            assert trial.spec.seed == probe.spec.seed
            assert trial.needs == (probe.id,)


def test_the_controls_always_run(settings: BenchSettings) -> None:
    names = {v.name for v in variants(settings)}
    assert {f"control-{action}" for action in CONTROLS} <= names


def test_a_ladder_goes_from_the_largest_rung_down_however_it_was_written(
    settings: BenchSettings,
) -> None:
    mixed = changed(
        settings,
        variants=(
            LadderSettings(action="truncate", ranks=(2, 6, 4)),
            LadderSettings(action="heal", energies=(0.9, 0.99), rule="per_module"),
        ),
    )
    rungs = [(v.name, v.ladder, v.step) for v in variants(mixed) if v.ladder]
    assert rungs == [
        ("truncate-r6", "truncate", 0),
        ("truncate-r4", "truncate", 1),
        ("truncate-r2", "truncate", 2),
        ("heal-e0.99-per_module", "heal", 0),
        ("heal-e0.9-per_module", "heal", 1),
    ]


@pytest.mark.parametrize(
    ("rslora", "rule", "alpha"),
    [
        (False, "keep_scale", 8.0),  # 16 / 8 = 8 / 4
        (True, "keep_scale", 16 / 2**0.5),  # 16 / sqrt(8) = alpha / sqrt(4)
        (False, "keep_alpha", 16.0),
    ],
)
def test_a_retrain_has_the_alpha_that_its_rule_says(
    settings: BenchSettings, rslora: bool, rule: str, alpha: float
) -> None:
    lora = msgspec.structs.replace(settings.lora, rslora=rslora)
    ladder = LadderSettings(action="retrain", ranks=(4,), alpha=rule)
    found = variant(changed(settings, lora=lora, variants=(ladder,)), "retrain-r4")
    assert found.alpha == pytest.approx(alpha)
    assert found.learning_rate == settings.train.learning_rate


def test_a_heal_has_a_tenth_of_the_probes_steps_and_rate(settings: BenchSettings) -> None:
    healed = variant(settings, "heal-r2")
    assert (healed.steps, healed.learning_rate) == (1, pytest.approx(1e-5))
    own = LadderSettings(action="heal", ranks=(2,), heal_steps=7, learning_rate=1e-3)
    assert variant(changed(settings, variants=(own,)), "heal-r2").steps == 7


def test_truncate_trains_nothing(settings: BenchSettings) -> None:
    found = variant(settings, "truncate-r4")
    assert (found.steps, found.learning_rate, found.alpha) == (None, None, None)


def test_the_random_control_has_the_size_of_the_top_rung(settings: BenchSettings) -> None:
    assert variant(settings, "control-random").rank == 4
    by_energy = LadderSettings(action="truncate", energies=(0.5, 0.9), rule="per_module")
    found = variant(changed(settings, variants=(by_energy,)), "control-random")
    assert (found.rank, found.energy, found.rule) == (None, 0.9, "per_module")


@pytest.mark.parametrize(
    "other",
    [
        {"base": "another"},
        {"versions": {"torch": "3"}},
        {"code": "another"},
        {"device": "cuda"},
    ],
)
def test_an_id_depends_on_everything_that_determines_the_numbers(
    settings: BenchSettings, other: dict[str, object]
) -> None:
    assert not set(ids(settings).values()) & set(ids(settings, **other).values())


@pytest.mark.parametrize("key", ["train.steps=11", "lora.alpha=17", "evaluation.batch_size=2"])
def test_an_id_depends_on_every_part_of_the_settings(settings: BenchSettings, key: str) -> None:
    config = Path(settings.model.id).parent / "bench.yaml"
    assert not set(ids(settings).values()) & set(ids(settings_of(config, key)).values())


def test_an_id_does_not_depend_on_what_only_names_runs_or_judges(settings: BenchSettings) -> None:
    config = Path(settings.model.id).parent / "bench.yaml"
    other = settings_of(
        config, "name=other", "claim.margin=0.1", "executor.workers=3", "disk_budget=1TB"
    )
    assert ids(settings) == ids(other)


def test_the_key_for_accepting_results_leaves_out_code_and_versions_alone(
    settings: BenchSettings,
) -> None:
    def keys(**other: object) -> set[str]:
        return {content_key(t.spec) for t in plan(settings, facts(settings, **other))}

    assert keys() == keys(code="x", versions={})
    assert not keys() & keys(base="x")
