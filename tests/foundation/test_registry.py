"""Names map to objects that are imported on first use."""

import math
import sys

import pytest

from gradience.errors import ExitCode, UnknownNameError
from gradience.registry import Registry

TABLE = {"sqrt": "math:sqrt", "parser": "html.parser:HTMLParser"}


def test_listing_imports_nothing() -> None:
    sys.modules.pop("html.parser", None)
    registry: Registry[object] = Registry("function", TABLE)
    assert list(registry) == ["sqrt", "parser"]
    assert "parser" in registry
    assert "html.parser" not in sys.modules


def test_a_name_gives_its_object() -> None:
    assert Registry("function", TABLE)["sqrt"] is math.sqrt


def test_a_typo_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="no function named 'sqrd'") as caught:
        Registry("function", TABLE)["sqrd"]
    assert caught.value.remedy == "Did you mean 'sqrt'?"
    assert caught.value.exit_code == ExitCode.USAGE


def test_a_strange_name_lists_what_is_known() -> None:
    with pytest.raises(UnknownNameError) as caught:
        Registry("function", TABLE)["zzz"]
    assert caught.value.remedy == "Known: sqrt, parser."
