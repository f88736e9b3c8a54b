"""`gradience check`: what a user types, reads, and gets back as an exit code."""

import json

import pytest
from click.testing import CliRunner

from gradience.cli.check import check
from gradience.errors import UsageError

GOOD = {"peft_type": "LORA", "r": 16, "lora_alpha": 32, "target_modules": "all-linear"}


def run(*words):
    done = CliRunner().invoke(check, [str(w) for w in words], standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done.return_value, " ".join(done.output.split())


@pytest.fixture
def adapter(tmp_path):
    def write(**more):
        (tmp_path / "adapter_config.json").write_text(json.dumps(GOOD | more))
        return tmp_path

    return write


def test_a_good_configuration_exits_with_0_and_says_what_was_not_judged(adapter):
    code, page = run(adapter())
    assert code == 0
    assert "nothing to object to" in page
    assert "not given: training" in page


def test_a_finding_says_what_helps_and_where_it_is_from(adapter):
    code, page = run(adapter(lora_alpha=0))
    assert code == 1
    assert "error: lora_alpha is 0 [scale_zero]" in page
    assert "Set lora_alpha to r or 2 r." in page
    assert "Source: PEFT" in page


def test_fail_on_decides_what_is_bad_news(adapter):
    warned = adapter(lora_dropout=0.6)
    assert run(warned)[0] == 1
    assert run(warned, "--fail-on", "error")[0] == 0
    assert run(warned, "--fail-on", "never")[0] == 0
    with pytest.raises(UsageError, match="neither a severity"):
        run(warned, "--fail-on", "dropout")


def test_json_is_the_artifact_and_nothing_else(adapter):
    envelope = json.loads(run(adapter(lora_dropout=0.6), "--json")[1])
    assert envelope["schema"] == "gradience.check/v1"
    (finding,) = envelope["content"]["findings"]
    assert finding["source"].startswith("Dettmers")
