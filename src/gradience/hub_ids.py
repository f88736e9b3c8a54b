"""What a text names on the Hub: whether it can be the id of a repository, or is a commit.

For ids huggingface_hub's `validate_repo_id` is the authority: what it refuses, no call of that
library takes. Its rule is written again since asking it costs an eighth of a second of imports,
which an audit of local files need not pay; a test holds the two against each other.

An id looks like a relative path. So whoever is given a text looks at the disk first, and what is
there is taken as a path; only of the rest it is asked here whether it can be an id.
"""

import re

_NAME = r"\b[\w.-]{1,96}\b"
_REPO_ID = re.compile(rf"(?:{_NAME}/)?{_NAME}", re.ASCII)

COMMIT = re.compile(r"[0-9a-f]{40}")
"""A revision that names one state of a repository for good, as the whole of a text."""


def is_repo_id(text: str, *, namespace: bool = False) -> bool:
    """Whether a text, without any `@revision`, can be the id of a repository.

    Parameters
    ----------
    text : str
    namespace : bool
        Whether it must be `org/name`. Repositories of one word, such as `gpt2`, are of the Hub's
        first years: where none of them can be meant, a word is a path or a plain name.

    References
    ----------
    huggingface_hub 2.4, `utils/_validators.py`.

    Examples
    --------
    >>> is_repo_id("org/name"), is_repo_id("gpt2"), is_repo_id("gpt2", namespace=True)
    (True, True, False)
    >>> is_repo_id("./name"), is_repo_id("../name"), is_repo_id("a/b/c"), is_repo_id("a--b")
    (False, False, False, False)
    """
    return (
        _REPO_ID.fullmatch(text) is not None
        and "--" not in text
        and ".." not in text
        and not text.endswith(".git")
        and ("/" in text or not namespace)
    )
