"""One module per verb, one line each here: `apply` needs to know no more of a new one."""

from gradience.registry import Registry
from gradience.storage.change.verbs.verb import Verb

_HERE = "gradience.storage.change.verbs"

VERBS: Registry[Verb] = Registry(
    "verb",
    {
        "delete": f"{_HERE}.delete:DELETE",
        "hardlink": f"{_HERE}.hardlink:HARDLINK",
        "link": f"{_HERE}.link:LINK",
        "mode": f"{_HERE}.mode:MODE",
        "prune": f"{_HERE}.prune:PRUNE",
        "reflink": f"{_HERE}.reflink:REFLINK",
        "trash": f"{_HERE}.trash:TRASH",
    },
)
