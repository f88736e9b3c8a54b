"""How files come down from the Hub: which switch the installed client understands.

hf_transfer is read by no client since huggingface_hub 1.0, and with Xet off the hub refuses files
over 50 GB and drops its shared blob store: what was good advice for one version harms another.
"""

import re
from dataclasses import dataclass
from typing import Literal

Choice = Literal["plain", "fast", "auto"]

_XET_OFF = "with Xet off the hub refuses files over 50 GB and drops its shared blob store"


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """The installed download client.

    Attributes
    ----------
    hub : str, optional
        Version of huggingface_hub; None where it is not installed.
    hf_transfer, xet : bool
        Whether hf_transfer and hf_xet are installed.
    """

    hub: str | None = None
    hf_transfer: bool = False
    xet: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """Switches to set, and why.

    Attributes
    ----------
    switches : tuple of (name, value)
    reason : str
        For a comment.
    hint : str
        What to install first; empty where nothing is missing.
    """

    switches: tuple[tuple[str, str], ...]
    reason: str
    hint: str = ""


def transfer(choice: Choice, client: Client) -> Transfer:
    """The switches for a choice and an installed client.

    Examples
    --------
    >>> transfer("fast", Client(hub="2.4.0", xet=True)).switches
    (('HF_XET_HIGH_PERFORMANCE', '1'),)
    >>> transfer("auto", Client(hub="2.4.0", xet=True)).switches
    ()
    """
    if choice == "plain":
        return Transfer(
            switches=(("HF_HUB_DISABLE_XET", "1"), ("HF_HUB_ENABLE_HF_TRANSFER", "0")),
            reason=f"plain HTTP, as asked; {_XET_OFF}",
        )
    if client.hub is None:
        return Transfer(switches=(), reason="huggingface_hub is not installed: nothing to switch")
    return _fast(client) if choice == "fast" else _auto(client)


def _fast(client: Client) -> Transfer:
    if _major(client.hub) >= 1:
        return Transfer(
            switches=(("HF_XET_HIGH_PERFORMANCE", "1"),),
            reason=f"huggingface_hub {client.hub} ignores hf_transfer; Xet may use all cores",
            hint="" if client.xet else "pip install hf_xet",
        )
    # With the switch on and hf_transfer missing, these versions refuse every download.
    return Transfer(
        switches=(("HF_HUB_ENABLE_HF_TRANSFER", "1"),) if client.hf_transfer else (),
        reason=f"huggingface_hub {client.hub} downloads with hf_transfer"
        if client.hf_transfer
        else f"huggingface_hub {client.hub} needs hf_transfer to be fast, which is not installed",
        hint="" if client.hf_transfer else "pip install hf_transfer",
    )


def _auto(client: Client) -> Transfer:
    if client.xet or _major(client.hub) >= 1:
        how = "Xet stays on" if client.xet else "plain HTTP, as hf_xet is not installed"
        why = _XET_OFF if client.xet else "which refuses files over 50 GB"
        return Transfer(
            switches=(),
            reason=f"huggingface_hub {client.hub}: {how}: {why}",
            hint="" if client.xet else "pip install hf_xet",
        )
    if client.hf_transfer:
        return _fast(client)
    return Transfer(
        switches=(), reason=f"huggingface_hub {client.hub} downloads over plain HTTP by itself"
    )


def _major(version: str | None) -> int:
    match = re.match(r"\d+", version or "")
    return int(match[0]) if match else 0
