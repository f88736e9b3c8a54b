"""A loop-back Hub: the endpoints the real huggingface_hub client needs to find and fetch files.

It serves repositories from memory, records every request, and answers the way the Hub does:
`X-Repo-Commit` and `ETag` on HEAD, byte ranges on GET, `X-Error-Code` on refusals, and with `cdn` a
redirect of large files to a signed address on another host. `misbehave` makes it answer otherwise.
"""

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34
_API = re.compile(r"/api/\w+/(?P<repo>[^/]+/[^/]+)(?:/revision/(?P<revision>[^/]+))?")
_TREE = re.compile(r"/api/\w+/(?P<repo>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)")
_FILE = re.compile(r"(?:/datasets)?/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")
_LARGE = (".safetensors", ".bin")


@dataclass
class Repo:
    """A repository: its files at one commit, which `revisions` name, and earlier commits of it.

    A file in `halting` is sent by half; the rest follows when the hub's `go_on` is set. The `card`
    is the metadata of its README.md.
    """

    files: Mapping[str, bytes]
    commit: str = COMMIT
    revisions: tuple[str, ...] = ("main",)
    gated: bool = False
    earlier: tuple["Repo", ...] = ()
    halting: frozenset[str] = frozenset()
    card: Mapping[str, object] = field(default_factory=dict)

    def at(self, revision: str) -> "Repo | None":
        """The repository as of a branch or a commit."""
        for repo in (self, *self.earlier):
            if revision in (*repo.revisions, repo.commit):
                return repo
        return None


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request for a file, as it came."""

    method: str
    file: str
    span: str
    on_cdn: bool
    has_content: bool
    signature: int
    token: str

    @property
    def has_range(self) -> bool:
        """Whether it is answered with bytes from the middle of a file, not with its beginning."""
        return (
            self.has_content
            and self.span.startswith("bytes=")
            and not self.span.startswith("bytes=0-")
        )


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """How an answer differs from what it should be.

    Attributes
    ----------
    status : int, optional
        Answered in its place, with an empty body.
    headers : mapping
        Set, or left out where the value is empty.
    cut : int, optional
        Bytes of the body after which the connection is closed.
    more : bytes
        Sent after the body.
    content : bytes, optional
        The file is this one now.
    ignore_range : bool
        The whole file with status 200.
    hold : threading.Event, optional
        The body is sent when it is set.
    seconds : float
        Waited before the answer.
    rate : float, optional
        Bytes of the body in a second.
    """

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    more: bytes = b""
    content: bytes | None = None
    ignore_range: bool = False
    hold: threading.Event | None = None
    seconds: float = 0.0
    rate: float | None = None


WELL = Behaviour()


@dataclass
class Hub:
    """The server's state: what it has and what it was asked.

    The next `stumbles` answers are 503, and all of them while it is `down`. A `page` is answered to
    everything, as by a network that wants a login.
    """

    repos: dict[str, Repo]
    url: str = ""
    cdn: str = ""
    down: bool = False
    stumbles: int = 0
    page: bytes = b""
    requests: list[tuple[str, str]] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    misbehave: Callable[[Asked], Behaviour] = lambda asked: WELL
    signatures: int = 0
    expired: int = 0
    halfway: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)

    def fetched(self) -> list[str]:
        """Names of the files whose bytes were sent."""
        found = (_FILE.fullmatch(path) for method, path in self.requests if method == "GET")
        return [match["file"] for match in found if match]

    def forget(self) -> None:
        """Begin a new record of what was asked."""
        self.requests.clear()
        self.tokens.clear()
        self.asked.clear()


@contextmanager
def serve(*, cdn: bool = False, **repos: Repo) -> Iterator[Hub]:
    """A Hub on a free port of the loop-back interface; `org__name` stands for `org/name`.

    With `cdn`, large files are sent by a second server, whose host has another name.
    """
    hub = Hub(repos={name.replace("__", "/"): repo for name, repo in repos.items()})
    with ExitStack() as running:
        running.callback(hub.go_on.set)
        hub.url = f"http://127.0.0.1:{running.enter_context(_running(hub, on_cdn=False))}"
        if cdn:
            hub.cdn = f"http://localhost:{running.enter_context(_running(hub, on_cdn=True))}"
        yield hub
        hub.go_on.set()


@contextmanager
def _running(hub: Hub, *, on_cdn: bool) -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub, on_cdn=on_cdn))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(hub: Hub, *, on_cdn: bool) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def handle(self) -> None:
            """Take no offence where a client goes away."""
            with suppress(ConnectionError):
                super().handle()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: the requests are recorded."""

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, *, with_body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.requests.append((self.command, path))
            hub.tokens.append(self.headers.get("Authorization", ""))
            match = _API.fullmatch(path) or _TREE.fullmatch(path) or _FILE.fullmatch(path)
            if hub.down or hub.stumbles > 0:
                hub.stumbles -= 1
                self._send(503, b"down", {}, with_body)
                return
            if hub.page:
                self._send(200, hub.page, {}, with_body)
                return
            repo = hub.repos.get(match["repo"]) if match else None
            if match is None or repo is None:
                self._refuse(401, "RepoNotFound", with_body)
                return
            repo = repo.at(match["revision"] or "main")
            if repo is None:
                self._refuse(404, "RevisionNotFound", with_body)
            elif match.re is _TREE:
                self._send(200, _tree(repo), {}, with_body)
            elif "file" not in match.groupdict():
                sizes = "blobs" in parse_qs(urlsplit(self.path).query)
                self._send(200, _model_info(match["repo"], repo, sizes=sizes), {}, with_body)
            elif repo.gated:
                self._refuse(403, "GatedRepo", with_body)
            elif match["file"] not in repo.files:
                self._refuse(404, "EntryNotFound", with_body)
            else:
                self._file(repo, match["file"], with_body)

        def _file(self, repo: Repo, name: str, with_body: bool) -> None:
            signature = int(parse_qs(urlsplit(self.path).query).get("Signature", ["0"])[0])
            asked = Asked(
                method=self.command,
                file=name,
                span=self.headers.get("Range", ""),
                on_cdn=on_cdn,
                has_content=on_cdn or not (hub.cdn and name.endswith(_LARGE)),
                signature=signature,
                token=self.headers.get("Authorization", ""),
            )
            hub.asked.append(asked)
            behaviour = hub.misbehave(asked)
            time.sleep(behaviour.seconds)
            data = repo.files[name] if behaviour.content is None else behaviour.content
            etag = _etag(data)
            headers = {"X-Repo-Commit": repo.commit, "ETag": etag, "Accept-Ranges": "bytes"}
            if behaviour.status is not None:
                self._send(behaviour.status, b"", behaviour.headers, with_body)
            elif on_cdn and signature <= hub.expired:
                self._send(403, b"", {}, with_body)
            elif not asked.has_content:
                hub.signatures += 1
                linked = {"X-Linked-ETag": etag, "X-Linked-Size": str(len(data))}
                place = {"Location": f"{hub.cdn}{self.path}?Signature={hub.signatures}"}
                self._send(302, b"", {**headers, **linked, **place}, with_body)
            else:
                self._content(data, headers, with_body, asked, behaviour, name in repo.halting)

        def _content(
            self,
            data: bytes,
            headers: dict[str, str],
            with_body: bool,
            asked: Asked,
            behaviour: Behaviour,
            halting: bool,
        ) -> None:
            span = re.fullmatch(r"bytes=(\d+)-(\d*)", asked.span)
            status, body = 200, data
            if span and with_body and not behaviour.ignore_range:
                first, last = int(span[1]), min(int(span[2] or len(data)), len(data) - 1)
                if first >= len(data):
                    self._send(416, b"", {"Content-Range": f"bytes */{len(data)}"}, with_body)
                    return
                headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
                status, body = 206, data[first : last + 1]
            headers |= behaviour.headers
            if behaviour.hold is not None:
                hub.halfway.set()
                behaviour.hold.wait()
            sent = (body if behaviour.cut is None else body[: behaviour.cut]) + behaviour.more
            self.close_connection = self.close_connection or sent != body
            headers = {"Content-Length": str(len(body)), **headers}
            self._send(status, sent, headers, with_body, halting=halting, rate=behaviour.rate)

        def _refuse(self, status: int, code: str, with_body: bool) -> None:
            self._send(status, b"{}", {"X-Error-Code": code}, with_body)

        def _send(
            self,
            status: int,
            body: bytes,
            headers: Mapping[str, str],
            with_body: bool,
            *,
            halting: bool = False,
            rate: float | None = None,
        ) -> None:
            with suppress(ConnectionError):
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    if value:
                        self.send_header(name, value)
                self.end_headers()
                if with_body and halting:
                    self._send_by_halves(body)
                elif with_body and rate is not None:
                    self._send_slowly(memoryview(body), rate)
                elif with_body:
                    self.wfile.write(body)

        def _send_slowly(self, body: memoryview, rate: float) -> None:
            started, piece = time.monotonic(), 1 << 18
            for start in range(0, len(body), piece):
                self.wfile.write(body[start : start + piece])
                time.sleep(max(0.0, started + (start + piece) / rate - time.monotonic()))

        def _send_by_halves(self, body: bytes) -> None:
            half = len(body) // 2
            self.wfile.write(body[:half])
            self.wfile.flush()
            hub.halfway.set()
            hub.go_on.wait()
            with suppress(ConnectionError):
                self.wfile.write(body[half:])
            self.close_connection = True

    return Handler


@lru_cache(maxsize=64)
def _etag(data: bytes) -> str:
    return f'"{hashlib.sha256(data).hexdigest()}"'


def _model_info(name: str, repo: Repo, *, sizes: bool) -> bytes:
    siblings = [
        {"rfilename": file, **({"size": len(data)} if sizes else {})}
        for file, data in repo.files.items()
    ]
    info = {"id": name, "modelId": name, "sha": repo.commit, "siblings": siblings, "tags": []}
    return json.dumps({**info, **({"cardData": repo.card} if repo.card else {})}).encode()


def _tree(repo: Repo) -> bytes:
    """The listing of a commit; large files are told from small ones by their name, as LFS does."""
    listed = []
    for path, data in repo.files.items():
        blob = hashlib.sha1(b"blob %d\x00" % len(data) + data).hexdigest()
        entry = {"type": "file", "path": path, "size": len(data), "oid": blob}
        if path.endswith(_LARGE):
            sha256 = hashlib.sha256(data).hexdigest()
            entry["lfs"] = {"oid": sha256, "size": len(data), "pointerSize": 130}
        listed.append(entry)
    return json.dumps(listed).encode()
