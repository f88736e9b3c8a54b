"""A file on a web server, read by range: every answer is held against what the first one said.

A range that was cut is resumed behind the last byte that came, so a resumed tensor is made of
several answers. They are of one file only if size and validator (a strong ETag, else what else the
server says: a weak one, Last-Modified) stay the same, which is checked on each, together with every
promise of length.

References
----------
RFC 9110, 8.8 (validators), 14 (range requests), 15.4 (redirection).
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event
from urllib.parse import urljoin

from gradience.errors import RefusedError, TransferError
from gradience.tensors.remote.range_file import (
    ABSENT_PAUSES,
    OPENING_PAUSES,
    PAUSES,
    Interrupted,
    Patience,
    Told,
    changed,
    stopped,
)
from gradience.tensors.remote.session import (
    TRANSIENT,
    Answer,
    asked,
    is_http_url,
    is_nobody_there,
    origin,
    shown_url,
    transport_errors,
)

_MAX_REDIRECTS = 10
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_REFUSED = frozenset({401, 403, 404, 410})
# No length of a file has more digits than 2^63.
_DIGITS = re.compile(r"\d{1,19}", re.ASCII)
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})", re.ASCII)
# "r=0;t=55": none left, and the seconds until there are some; the Hub says it this way.
_RATE_LIMIT = re.compile(r"\br=0\s*;\s*t=(\d{1,19})", re.ASCII)

REFUSALS = {
    "GatedRepo": (
        "it is gated, and this login may not read it",
        "Ask for access on its page, then run: hf auth login",
    ),
    "RepoNotFound": (
        "the Hub has no model of that name, or it is private",
        "Check the spelling; for a private model run: hf auth login",
    ),
    "RevisionNotFound": (
        "it has no such revision",
        "Name a branch, a tag or a commit that it has.",
    ),
}
"""Reason and remedy by `X-Error-Code`, the Hub's word for why it refuses."""

_LOGIN = "Check the address, and that this login may read it."
_REFUSALS = {
    401: ("its server asks for a login (401)", _LOGIN),
    403: ("its server does not allow it (403)", _LOGIN),
    404: ("it is not there (404)", "Check the address."),
    410: ("it is no longer there (410)", "Check the address."),
}


@dataclass(eq=False, slots=True, kw_only=True)
class HttpFile:
    """One file behind a URL; implements `RangeFile`.

    Attributes
    ----------
    url : str
    name : str
        For the reader.
    headers : mapping of str to str
        Sent along; `authorization` only to the host of `url`, whatever it redirects to.
    pauses : tuple of float
        Seconds between tries that brought nothing.
    """

    url: str
    name: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    pauses: tuple[float, ...] = PAUSES
    _place: str = field(default="", init=False, repr=False)
    _size: int | None = field(default=None, init=False)
    _seen: dict[object, str] = field(default_factory=dict, init=False, repr=False)

    @property
    def size(self) -> int:
        """Bytes of the whole file; known after `head`."""
        if self._size is None:
            self.head(1)
        assert self._size is not None  # `head` knows it, or raised
        return self._size

    @property
    def validator(self) -> str:
        """ETag of the linked file, else what the last place says of its version; may be empty."""
        return self._seen.get("linked") or self._seen.get(origin(self._place), "")

    @property
    def names_version(self) -> bool:
        """Whether it is a strong ETag.

        A weak one may stand for several contents, and a time has seconds only (RFC 9110, 8.8.1).
        """
        return _is_strong(self.validator)

    def head(self, most: int) -> bytes:
        """The first bytes; see `RangeFile`."""
        return self._patiently(lambda: b"".join(self._range(0, most - 1, whole_is_fine=True)))

    def whole(self, limit: int) -> bytes:
        """All of a small file.

        Raises
        ------
        TransferError
            If it cannot be had, or is larger than `limit` bytes.
        """
        return self._patiently(lambda: self._whole(limit))

    def read_into(self, begin: int, buffer: memoryview, *, told: Told, stop: Event) -> None:
        """Fill the buffer; see `RangeFile`."""
        done, total = 0, len(buffer)
        patience = Patience(name=self.name, stop=stop, pauses=self.pauses)
        while done < total:
            before = done
            try:
                for chunk in self._range(begin + done, begin + total - 1):
                    if stop.is_set():
                        raise stopped(self.name)
                    buffer[done : done + len(chunk)] = chunk
                    done += len(chunk)
                    told(len(chunk))
            except Interrupted as trouble:
                self._place = ""
                patience.wait(trouble, progress=done > before)

    def _patiently(self, act: Callable[[], bytes]) -> bytes:
        """The bytes of a short request, tried again from its start, and sooner given up."""
        patience = Patience(name=self.name, stop=Event(), pauses=self.pauses[:OPENING_PAUSES])
        while True:
            try:
                return act()
            except Interrupted as trouble:
                self._place = ""
                if trouble.nobody_there and not self._seen:
                    patience.pauses = self.pauses[:ABSENT_PAUSES]
                patience.wait(trouble, progress=False)

    def _whole(self, limit: int) -> bytes:
        with self._answer({}) as answer:
            if answer.status != 200:
                raise self._lie(f"it answers {answer.status} where 200 is meant")
            length = _number(answer.headers.get("Content-Length"))
            if (length or 0) > limit:
                raise self._lie(f"it has {length} bytes, more than the {limit} of such a file")
            data = bytearray()
            for chunk in answer.chunks:
                data += chunk
                if len(data) > limit:
                    raise self._lie(f"it has more than the {limit} bytes of such a file")
            if length is not None and len(data) < length:
                raise Interrupted(f"the body ended after {len(data)} of {length} bytes")
        return bytes(data)

    def _range(self, first: int, last: int, *, whole_is_fine: bool = False) -> Iterator[bytes]:
        """The bytes from first to last, as they come.

        `whole_is_fine` allows the file to end before `last`.

        Raises
        ------
        Interrupted
            If they end before.
        TransferError
            If they are not what was asked for.
        """
        with self._answer({"Range": f"bytes={first}-{last}"}) as answer:
            expected = self._promised(answer, first, last, whole_is_fine=whole_is_fine)
            came = 0
            for chunk in answer.chunks:
                if came + len(chunk) > expected:
                    raise self._lie(f"it sends more than the {expected} bytes it announced")
                came += len(chunk)
                yield chunk
            if came < expected:
                raise Interrupted(f"the body ended after {came} of {expected} bytes")

    def _promised(self, answer: Answer, first: int, last: int, *, whole_is_fine: bool) -> int:
        """Bytes that a checked answer to a range request will hold."""
        if answer.status == 200:
            raise TransferError(
                f"{self.name}: its server does not answer range requests (200 in place of 206)",
                remedy="Download the file, and name it on this disk.",
            )
        if answer.status == 416:
            holds = answer.headers.get("Content-Range", "").removeprefix("bytes */")
            if holds == "0":
                raise TransferError(
                    f"{self.name}: it is empty (0 bytes)", remedy="Check the address."
                )
            raise changed(self.name, f"it has no bytes {first}-{last} ({holds or 'size unknown'})")
        if answer.status != 206:
            raise self._lie(f"it answers {answer.status} where 206 is meant")
        text = answer.headers.get("Content-Range", "")
        match = _CONTENT_RANGE.fullmatch(text)
        if match is None:
            raise self._lie(
                f"its answer to a range says {text[:80] or 'nothing'} for Content-Range"
            )
        begins, ends, total = map(int, match.groups())
        self._same("size", str(total))
        self._size = total
        full = last if not whole_is_fine else min(last, total - 1)
        if begins != first or ends > full or ends < begins or ends >= total:
            raise self._lie(f"asked for bytes {first}-{full}, it sends {text}")
        length = _number(answer.headers.get("Content-Length"))
        if length is not None and length != ends - begins + 1:
            raise self._lie(f"it announces {length} bytes for {text}")
        if whole_is_fine and ends < full:
            raise Interrupted(f"it sends {text} where {first}-{full} was asked")
        return ends - begins + 1

    @contextmanager
    def _answer(self, wanted: Mapping[str, str]) -> Iterator[Answer]:
        """The answer at the end of the redirects, checked but for its length."""
        url = self._place or self.url
        fresh = not self._place
        try:
            for _ in range(_MAX_REDIRECTS):
                with asked(url, {**self._headers_for(url), **wanted}) as answer:
                    if answer.status not in _REDIRECTS:
                        self._place = url
                        self._check(answer, fresh=fresh)
                        yield answer
                        return
                    target = _joined(url, answer.headers.get("Location", ""))
                    self._note_linked(answer)
                if not is_http_url(target):
                    raise self._lie("it redirects to what is no address")
                if target.startswith("http:") and url.startswith("https:"):
                    raise self._lie(f"it redirects from https to {shown_url(target)}")
                url = target
        except transport_errors() as error:
            raise _interruption(error, self.name) from error
        raise self._lie(f"more than {_MAX_REDIRECTS} redirects")

    def _headers_for(self, url: str) -> dict[str, str]:
        """What may be sent there: the token stays with the host it is for."""
        if origin(url) == origin(self.url):
            return dict(self.headers)
        return {k: v for k, v in self.headers.items() if k.lower() != "authorization"}

    def _note_linked(self, redirect: Answer) -> None:
        """What the Hub says of a file that it keeps elsewhere."""
        etag, size = (redirect.headers.get(f"X-Linked-{what}") for what in ("ETag", "Size"))
        if etag:
            self._same("linked", etag)
        if size:
            self._same("size", size)

    def _check(self, answer: Answer, *, fresh: bool) -> None:
        """Refuse an answer that is none, and one of another version of the file."""
        status, headers = answer.status, answer.headers
        if status in TRANSIENT:
            raise Interrupted(f"its server answers {status}", wait=_asked_wait(headers))
        if status in _REFUSED:
            if not fresh:
                # A signed address lasts minutes to hours; the file's own gives a new one.
                raise Interrupted(f"its signed address has expired ({status})", wait=0.0)
            reason, remedy = REFUSALS.get(headers.get("X-Error-Code", ""), _REFUSALS[status])
            raise RefusedError(f"{self.name}: {reason}", remedy=remedy)
        if status >= 400 and status != 416:
            raise self._lie(f"its server answers {status}")
        if headers.get("Content-Encoding", "identity") not in ("identity", ""):
            raise self._lie(f"it sends {headers['Content-Encoding']}, which was not asked for")
        validator = _validator(headers)
        if validator and status in (200, 206):
            self._same(origin(self._place), validator)

    def _same(self, key: object, value: str) -> None:
        """Note what an answer says of the file, and refuse when it said another thing before."""
        before = self._seen.setdefault(key, value)
        if before != value:
            what = key if isinstance(key, str) else "validator"
            raise changed(self.name, f"{what} {value} where it was {before}")

    def _lie(self, what: str) -> TransferError:
        return TransferError(
            f"{self.name}: {what}", remedy="Download the file by other means, and name it here."
        )


def _is_strong(etag: str) -> bool:
    return etag.startswith('"')


def _validator(headers: Mapping[str, str]) -> str:
    """A strong ETag, else all that is said of the version.

    Examples
    --------
    >>> _validator({"ETag": 'W/"5f"', "Last-Modified": "Wed, 25 Nov 2026 10:00:00 GMT"})
    'W/"5f" Wed, 25 Nov 2026 10:00:00 GMT'
    """
    etag, date = headers.get("ETag", ""), headers.get("Last-Modified", "")
    return etag if _is_strong(etag) else " ".join(filter(None, (etag, date)))


def _joined(url: str, location: str) -> str:
    """Where a redirect leads; empty where that is no address."""
    try:
        return urljoin(url, location)
    except ValueError:  # half of an IPv6 address
        return ""


def _number(text: str | None) -> int | None:
    return int(text) if text and _DIGITS.fullmatch(text) else None


def _asked_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds the server asks to wait."""
    limit = _RATE_LIMIT.search(headers.get("RateLimit", ""))
    seconds = _number(headers.get("Retry-After")) if limit is None else int(limit[1]) + 1
    return None if seconds is None else float(seconds)


def _interruption(error: Exception, name: str) -> Exception:
    """What a transport error means: worth another try, unless nothing may be asked at all."""
    if type(error).__name__ == "OfflineModeIsEnabled":
        return TransferError(
            f"{name}: offline mode is on, and it is not on this disk",
            remedy="Go online (unset HF_HUB_OFFLINE), or name a local copy.",
        )
    # The text of a transport error may hold the address, and that a signature.
    said = "" if "://" in str(error) else f": {' '.join(str(error).split())[:120]}"
    return Interrupted(
        f"the connection failed ({type(error).__name__}{said})",
        nobody_there=is_nobody_there(error),
    )
