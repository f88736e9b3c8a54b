"""One HTTP request through huggingface_hub's session: its proxies, certificates, offline switch.

The session is httpx's since huggingface_hub 1.0 and requests' before; here both look the same.
"""

import errno
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Timer
from typing import Any, cast
from urllib.parse import urlsplit, urlunsplit

import msgspec

from gradience.errors import StorageError

_CHUNK = 1 << 18
_SLOW_SECONDS = 2.0

TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses of an answer that may be another in a moment."""

NO_ANSWER = (ValueError, KeyError, TypeError, AttributeError)
"""What huggingface_hub raises where an answer is not one of the Hub: it reads it without a look."""

# Errors by name, of httpx and of requests, which calls both a cut and a refusal `ConnectionError`.
_NOBODY_THERE = frozenset({"ConnectError", "ConnectTimeout", "ReadTimeout"})
_CUT = frozenset({"ReadError", "RemoteProtocolError", "WriteError", "ConnectionError"})


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a server answered, its body still to come.

    Attributes
    ----------
    status : int
    headers : mapping of str to str
        By name, whatever its case.
    chunks : iterator of bytes
        The body as it was sent.
    """

    status: int
    headers: Mapping[str, str]
    chunks: Iterator[bytes]


@contextmanager
def asked(url: str, headers: Mapping[str, str]) -> Iterator[Answer]:
    """GET without following redirects, and without decompressing.

    Raises
    ------
    One of `transport_errors()`
        Also while the chunks are read.
    """
    from huggingface_hub import constants  # noqa: PLC0415 - only where something is fetched
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]  # noqa: PLC0415

    sent = {**headers, "Accept-Encoding": "identity"}
    timeout = float(constants.HF_HUB_DOWNLOAD_TIMEOUT)
    session: Any = get_session()
    if callable(getattr(session, "stream", None)):  # requests has a flag of that name
        with session.stream(
            "GET", url, headers=sent, timeout=timeout, follow_redirects=False
        ) as got:
            yield Answer(status=got.status_code, headers=got.headers, chunks=got.iter_raw())
    else:
        with session.get(
            url, headers=sent, timeout=timeout, allow_redirects=False, stream=True
        ) as got:
            chunks = got.iter_content(_CHUNK)
            yield Answer(status=got.status_code, headers=got.headers, chunks=chunks)


def answer_seconds() -> float:
    """How long the Hub may be silent when it is asked what it has: 10 s, or HF_HUB_ETAG_TIMEOUT.

    The session of huggingface_hub waits for ever unless it is told.
    """
    from huggingface_hub import constants  # noqa: PLC0415 - as above

    return float(constants.HF_HUB_ETAG_TIMEOUT)


@contextmanager
def told_if_slow(
    notice: Callable[[str], None], sentence: str, *, seconds: float = _SLOW_SECONDS
) -> Iterator[None]:
    """Say in a sentence what is waited for, once it has taken long; nothing where it is quick."""
    timer = Timer(seconds, notice, [sentence])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def transport_errors() -> tuple[type[Exception], ...]:
    """What the session raises when the network does not do as it should."""
    from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415 - as above

    # The transport's own root: HTTPError of httpx; requests' errors are all OSErrors. An address
    # that it cannot ask is no HTTPError to httpx.
    root = cast("type[Exception]", HfHubHTTPError.__mro__[1])
    library = sys.modules[root.__module__.partition(".")[0]]
    return OSError, root, getattr(library, "InvalidURL", root)


def no_answer() -> tuple[type[Exception], ...]:
    """What a call of huggingface_hub raises that brings none: the transport's errors, and its own.

    A name that cannot be is a ValueError to it, offline mode a ConnectionError.
    """
    return *transport_errors(), *NO_ANSWER


def is_nobody_there(error: BaseException) -> bool:
    """Whether nothing answered at all: no network, no such host, refused, or silence."""
    return type(error).__name__ in _NOBODY_THERE


def may_pass(error: BaseException | None) -> bool:
    """Whether a server stumbled: the connection was cut, or it says that it is busy or down."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status in TRANSIENT or (status is None and type(error).__name__ in _CUT)


def said(error: BaseException) -> str:
    """What an error says, in one line; what it is where it says nothing.

    Examples
    --------
    >>> said(OSError("no\\nanswer")), said(TimeoutError())
    ('no answer', 'TimeoutError')
    """
    return " ".join(str(error).split())[:200] or type(error).__name__


def is_of_disk(error: BaseException) -> bool:
    """Whether a download failed at the disk it is written to, and not at the network.

    Examples
    --------
    >>> is_of_disk(OSError(28, "No space left on device")), is_of_disk(ConnectionError(104, ""))
    (True, False)
    """
    of_network = isinstance(error, ConnectionError | TimeoutError)
    return isinstance(error, OSError) and error.errno is not None and not of_network


def unwritable_cache(repo: str, error: BaseException) -> StorageError:
    """The error of a download that the disk refused."""
    said = getattr(error, "strerror", None) or error
    full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
    return StorageError(
        f"{repo} cannot be written into the cache of huggingface_hub: {said}",
        remedy="Make room there, or set HF_HOME to a directory that has some."
        if full
        else "Set HF_HOME to a directory that you may write to, or see to that one.",
    )


def is_http_url(url: str) -> bool:
    """Whether a text is an address of a web server that can be asked.

    Examples
    --------
    >>> is_http_url("https://host:8080/a.safetensors?sig=x")
    True
    >>> [is_http_url(text) for text in ("https://host:bad/", "http:///x", "http://a..b/")]
    [False, False, False]
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        (parts.hostname or "").encode("idna")
    except ValueError:  # a port that is none, half of an IPv6 address, a label empty or too long
        return False
    return usable and url.isprintable() and " " not in url


def origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port: what a token must not leave.

    Examples
    --------
    >>> origin("https://Example.org/a") == origin("https://example.org:443/b")
    True
    """
    parts = urlsplit(url)
    port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    return parts.scheme, (parts.hostname or "").lower(), port


def shown_url(url: str) -> str:
    """An address without password, signature and fragment, for people and for files.

    Examples
    --------
    >>> shown_url("https://me:secret@host:81/m.safetensors?sig=abc#x")
    'https://host:81/m.safetensors'
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return f"{url.partition('://')[0]}://..."
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
