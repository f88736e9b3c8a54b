"""A loop-back Hub: the few endpoints the real huggingface_hub client needs to find and fetch files.

It serves repositories from memory, records every request, and answers the way the Hub does:
`X-Repo-Commit` and `ETag` on HEAD, byte ranges on GET, `X-Error-Code` on refusals.
"""

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34
_API = re.compile(r"/api/\w+/(?P<repo>[^/]+/[^/]+)(?:/revision/(?P<revision>[^/]+))?")
_TREE = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)")
_FILE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")


@dataclass
class Repo:
    """A repository: its files at one commit, which `revisions` name, and earlier commits of it.

    A file in `halting` is sent by half; the rest follows when the hub's `go_on` is set.
    """

    files: Mapping[str, bytes]
    commit: str = COMMIT
    revisions: tuple[str, ...] = ("main",)
    gated: bool = False
    earlier: tuple["Repo", ...] = ()
    halting: frozenset[str] = frozenset()

    def at(self, revision: str) -> "Repo | None":
        """The repository as of a branch or a commit."""
        for repo in (self, *self.earlier):
            if revision in (*repo.revisions, repo.commit):
                return repo
        return None


@dataclass
class Hub:
    """The server's state: what it has and what it was asked."""

    repos: dict[str, Repo]
    url: str = ""
    down: bool = False
    requests: list[tuple[str, str]] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    halfway: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)

    def fetched(self) -> list[str]:
        """Names of the files whose bytes were sent."""
        found = (_FILE.fullmatch(path) for method, path in self.requests if method == "GET")
        return [match["file"] for match in found if match]


@contextmanager
def serve(**repos: Repo) -> Iterator[Hub]:
    """A Hub on a free port of the loop-back interface; `org__name` stands for `org/name`."""
    hub = Hub(repos={name.replace("__", "/"): repo for name, repo in repos.items()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        hub.go_on.set()
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

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
            if hub.down:
                self._send(503, b"down", {}, with_body)
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
                self._send(200, _model_info(match["repo"], repo), {}, with_body)
            elif repo.gated:
                self._refuse(403, "GatedRepo", with_body)
            elif match["file"] not in repo.files:
                self._refuse(404, "EntryNotFound", with_body)
            else:
                self._file(repo, match["file"], with_body)

        def _file(self, repo: Repo, name: str, with_body: bool) -> None:
            data = repo.files[name]
            headers = {
                "X-Repo-Commit": repo.commit,
                "ETag": f'"{hashlib.sha256(data).hexdigest()}"',
                "Accept-Ranges": "bytes",
            }
            span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            if span and with_body:
                first, last = int(span[1]), int(span[2] or len(data) - 1)
                headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
                self._send(206, data[first : last + 1], headers, with_body)
            else:
                self._send(200, data, headers, with_body, halting=name in repo.halting)

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
        ) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if with_body and halting:
                self._send_by_halves(body)
            elif with_body:
                self.wfile.write(body)

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


def _model_info(name: str, repo: Repo) -> bytes:
    siblings = [{"rfilename": file} for file in repo.files]
    return json.dumps(
        {"id": name, "modelId": name, "sha": repo.commit, "siblings": siblings, "tags": []}
    ).encode()


def _tree(repo: Repo) -> bytes:
    """The listing of a commit; large files are told from small ones by their name, as LFS does."""
    listed = []
    for path, data in repo.files.items():
        blob = hashlib.sha1(b"blob %d\x00" % len(data) + data).hexdigest()
        entry = {"type": "file", "path": path, "size": len(data), "oid": blob}
        if path.endswith((".safetensors", ".bin")):
            sha256 = hashlib.sha256(data).hexdigest()
            entry["lfs"] = {"oid": sha256, "size": len(data), "pointerSize": 130}
        listed.append(entry)
    return json.dumps(listed).encode()
