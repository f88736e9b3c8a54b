"""What the documents say is so: pages are current, links lead somewhere."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest

from gradience.audit.records import TruncationRule

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]


def load(name: str) -> ModuleType:
    """A script of docs/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


OUTPUTS = load("outputs")
GENERATED = load("generate").pages()


@pytest.mark.parametrize("name", list(GENERATED))
def test_a_generated_page_is_current(name: str) -> None:
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == GENERATED[name], "run `make docs`"


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


@pytest.mark.parametrize(
    ("page", "command"),
    [(page, command) for page in OUTPUTS.PAGES for command in OUTPUTS.blocks(page)],
    ids=lambda value: value.name if isinstance(value, Path) else value,
)
def test_the_output_that_is_shown_is_what_is_printed(page: Path, command: str) -> None:
    printed = OUTPUTS.printed(command, OUTPUTS.PAGES[page])
    if printed is None:
        pytest.skip("the adapter or the base model of this command is not here")
    assert printed == OUTPUTS.blocks(page)[command], "run `make docs`"


@pytest.mark.parametrize("page", list(OUTPUTS.SESSIONS), ids=lambda page: page.name)
def test_the_session_that_is_shown_is_what_is_printed(page: Path) -> None:
    shown = OUTPUTS.session(page)
    printed = OUTPUTS.played([command for command, _ in shown], OUTPUTS.SESSIONS[page])
    if printed is None:
        pytest.skip("the wheel of MiniLM-L6 is not installed")
    for (command, before), now in zip(shown, printed, strict=True):
        assert words(OUTPUTS.elided(now, before)) == words(before), f"{command}: run `make docs`"


def words(text: str) -> list[object]:
    """Numbers to what another BLAS or another number of threads leaves of them."""
    return [number(word) for word in re.sub(r"numpy \S+", "numpy", text).split()]


def number(word: str) -> object:
    try:
        return pytest.approx(float(word), rel=0.02)
    except ValueError:
        return word


def test_a_page_leaves_out_lines_and_finds_the_rest_again() -> None:
    printed = "a 1\nb 2\nc 3\nd 4"
    assert OUTPUTS.elided(printed, "...\nc 3\nx") == "...\nc 3\nd 4"
    assert OUTPUTS.elided(printed, "x\n...") == "a 1\n..."
    assert OUTPUTS.elided(printed, "x") == printed


def test_the_guide_to_compress_names_every_rule() -> None:
    guide = (ROOT / "docs" / "compress.md").read_text(encoding="utf-8")
    assert [rule for rule in get_args(TruncationRule) if f"`{rule}`" not in guide] == []
