"""What can be the id of a Hub repository, by our rule and by the client's own."""

import pytest
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from hypothesis import example, given
from hypothesis import strategies as st

from gradience.hub_ids import is_repo_id


def client_takes(text: str) -> bool:
    try:
        validate_repo_id(text)
    except HFValidationError:
        return False
    return True


# Of the letters that the rule is about, so that most of what is drawn is nearly an id.
NEARLY_IDS = st.text(alphabet="aZ0_-./@: \n\u00e9", max_size=12) | st.from_regex(
    r"(\w[\w.-]{0,98}/)?[\w.-]{1,98}(\.git)?", fullmatch=True
)


@given(NEARLY_IDS)
@example("a" * 97)
@example("a" * 96 + "/" + "b" * 96)
@example("org/name\n")
@example("org/caf\u00e9")
@example("org/name.git")
@example("org/_")
@example("org/-name")
@example("-")
@example("")
def test_our_rule_is_that_of_the_client(text: str) -> None:
    assert is_repo_id(text) is client_takes(text)


@pytest.mark.parametrize(("text", "owned"), [("org/name", True), ("gpt2", False), ("/name", False)])
def test_an_id_with_a_namespace_has_one_slash(text: str, owned: bool) -> None:
    assert is_repo_id(text, namespace=True) is owned
