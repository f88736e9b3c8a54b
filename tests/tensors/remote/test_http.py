"""Ranges of a file on a web server: the right bytes, or an error; never other bytes."""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

import numpy as np
import pytest

from gradience.errors import RefusedError, TransferError
from gradience.tensors.remote.http import HttpFile
from gradience.tensors.remote.session import told_if_slow
from hub_server import WELL, Asked, Behaviour, Hub, Repo, serve

DATA = np.random.default_rng(0).integers(0, 256, 200_000, np.uint8).tobytes()
OTHER = DATA[:100_000] + bytes(100_000)
NO_WAIT = (0.0, 0.0, 0.0)


@pytest.fixture(autouse=True)
def session(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The session of huggingface_hub, on the loop-back interface."""
    from huggingface_hub.utils import close_session  # noqa: PLC0415 - reads the environment

    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    yield
    close_session()


@pytest.fixture(params=[False, True], ids=["direct", "redirected"])
def hub(request: pytest.FixtureRequest) -> Iterator[Hub]:
    with serve(cdn=request.param, org__m=Repo({"m.safetensors": DATA, "c.json": b"{}"})) as served:
        yield served


def opened(hub: Hub, name: str = "m.safetensors") -> HttpFile:
    return HttpFile(
        url=f"{hub.url}/org/m/resolve/main/{name}",
        name="m",
        headers={"authorization": "Bearer hf_secret"},
        pauses=NO_WAIT,
    )


def read(file: HttpFile, begin: int, end: int) -> bytes:
    buffer = bytearray(end - begin)
    file.read_into(begin, memoryview(buffer), told=lambda nbytes: None, stop=Event())
    return bytes(buffer)


def for_ranges(behaviour: Behaviour, *, times: int = 10**6) -> Callable[[Asked], Behaviour]:
    """So behave when bytes from the middle are asked for, a number of times."""
    left = [times]

    def misbehave(asked: Asked) -> Behaviour:
        if not asked.has_range or left[0] == 0:
            return WELL
        left[0] -= 1
        return behaviour

    return misbehave


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({"Content-Range": f"bytes 0-9/{'9' * 5000}"}, "for Content-Range"),
        ({"Location": "http://["}, "no address"),
        ({"Location": "http://a..b/"}, "no address"),
        ({"Location": "http://999.1.1.1/"}, "InvalidURL|connection failed"),
    ],
)
def test_an_answer_that_cannot_be_is_an_error_with_its_reason(
    headers: dict[str, str], says: str
) -> None:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            self.send_response(302 if "Location" in headers else 206)
            for name, value in {"Content-Length": "0", **headers}.items():
                self.send_header(name, value)
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/m.safetensors"
    try:
        with pytest.raises(TransferError, match=says):
            HttpFile(url=url, name="m", pauses=NO_WAIT).head(10)
    finally:
        server.shutdown()
        server.server_close()


def test_any_range_is_that_of_the_file(hub: Hub) -> None:
    file = opened(hub)
    assert file.head(100) == DATA[:100]
    assert file.size == len(DATA)
    for begin, end in ((0, 1), (100, 5000), (199_999, 200_000), (1, 200_000)):
        assert read(file, begin, end) == DATA[begin:end]
    assert file.head(10**6) == DATA
    assert opened(hub, "c.json").whole(100) == b"{}"


LIES = {
    "no ranges": (Behaviour(ignore_range=True), "does not answer range requests"),
    "other content": (Behaviour(content=OTHER), "changed while it was read"),
    "longer now": (Behaviour(content=DATA + b"x"), "changed while it was read"),
    "shorter now": (Behaviour(content=DATA[:10]), "changed while it was read"),
    "length too small": (Behaviour(headers={"Content-Length": "5"}), "announces 5 bytes"),
    "length too large": (Behaviour(headers={"Content-Length": "99999"}), "announces 99999 bytes"),
    "another range": (Behaviour(headers={"Content-Range": "bytes 0-899/200000"}), "it sends bytes"),
    "a unit of its own": (Behaviour(headers={"Content-Range": "rows 1-2/3"}), "rows 1-2/3"),
    "no range said": (Behaviour(headers={"Content-Range": ""}), "says nothing for Content-Range"),
    "size unsaid": (Behaviour(headers={"Content-Range": "bytes 100-999/*"}), "Content-Range"),
    "compressed": (Behaviour(headers={"Content-Encoding": "gzip"}), "gzip, which was not asked"),
    "more than announced": (
        Behaviour(headers={"Content-Length": "", "Connection": "close"}, more=b"x"),
        "sends more than the 900 bytes",
    ),
    "nothing comes": (Behaviour(cut=0), "4 times in a row"),
    "ends early, tidily": (
        Behaviour(headers={"Content-Length": "", "Connection": "close"}, cut=0),
        "the body ended after 0 of 900 bytes, 4 times in a row",
    ),
    "down": (Behaviour(status=503), "answers 503, 4 times in a row"),
    "a day to wait": (
        Behaviour(status=429, headers={"Retry-After": "86400"}),
        "asks to wait 86400 s",
    ),
    "teapot": (Behaviour(status=418), "answers 418"),
    "no content": (Behaviour(status=204), "answers 204 where 206 is meant"),
}


@pytest.mark.parametrize("lie", LIES)
def test_an_answer_that_is_not_the_range_is_an_error(lie: str, hub: Hub) -> None:
    behaviour, message = LIES[lie]
    file = opened(hub)
    file.head(100)
    hub.misbehave = for_ranges(behaviour)
    with pytest.raises(TransferError, match=message) as caught:
        read(file, 100, 1000)
    assert str(caught.value).startswith("m")
    assert caught.value.remedy


@pytest.mark.parametrize("lie", ["other content", "longer now", "shorter now"])
def test_a_file_that_changes_within_a_tensor_is_an_error(lie: str, hub: Hub) -> None:
    file = opened(hub)
    file.head(100)
    answers = iter([Behaviour(cut=50_000), LIES[lie][0]])
    hub.misbehave = lambda asked: next(answers) if asked.has_range else WELL
    with pytest.raises(TransferError, match="changed while it was read"):
        read(file, 1, 150_000)


def test_a_server_without_etag_is_held_to_its_date(hub: Hub) -> None:
    dates = iter(["Mon, 01 Jan 2024 00:00:00 GMT"] * 2 + ["Tue, 02 Jan 2024 00:00:00 GMT"] * 9)

    def dated(asked: Asked) -> Behaviour:
        if not asked.has_content:
            return WELL
        return Behaviour(headers={"ETag": "", "Last-Modified": next(dates)})

    hub.misbehave = dated
    file = opened(hub)
    file.head(100)
    assert file.names_version is bool(hub.cdn)  # the Hub's own X-Linked-ETag is one
    assert read(file, 100, 200) == DATA[100:200]
    with pytest.raises(TransferError, match="changed while it was read: validator Tue"):
        read(file, 200, 300)


@pytest.mark.parametrize(
    "trouble",
    [
        Behaviour(cut=333),
        Behaviour(cut=0),
        Behaviour(status=500),
        Behaviour(status=504),
        Behaviour(status=429, headers={"Retry-After": "0"}),
    ],
    ids=["cut", "cut at once", "500", "504", "429"],
)
def test_what_passes_is_waited_for_and_resumed(trouble: Behaviour, hub: Hub) -> None:
    file = opened(hub)
    file.head(100)
    hub.misbehave = for_ranges(trouble, times=2)
    assert read(file, 100, 150_000) == DATA[100:150_000]
    if trouble.cut:
        spans = {asked.span for asked in hub.asked}
        assert {"bytes=100-149999", "bytes=433-149999", "bytes=766-149999"} <= spans


def test_hundreds_of_random_cuts_give_the_right_bytes(hub: Hub) -> None:
    dice = random.Random(7)
    cuts = 0

    def cut(asked: Asked) -> Behaviour:
        nonlocal cuts
        if not asked.has_range or dice.random() < 0.2:
            return WELL
        cuts += 1
        return Behaviour(cut=dice.choice((0, 1, dice.randrange(3000), dice.randrange(60_000))))

    file = replace(opened(hub), pauses=(0.0,) * 40)
    file.head(100)
    hub.misbehave = cut
    while cuts < 200:
        begin, end = sorted(dice.sample(range(1, len(DATA) + 1), 2))
        assert read(file, begin, end) == DATA[begin:end]


def test_the_token_stays_with_its_host() -> None:
    with serve(cdn=True, org__m=Repo({"m.safetensors": DATA})) as hub:
        file = opened(hub)
        file.head(100)
        read(file, 100, 1000)
        sent = {(asked.on_cdn, asked.token) for asked in hub.asked}
    assert sent == {(False, "Bearer hf_secret"), (True, "")}


def test_an_expired_signature_is_renewed_and_a_lasting_refusal_is_not() -> None:
    with serve(cdn=True, org__m=Repo({"m.safetensors": DATA})) as hub:
        file = opened(hub)
        file.head(100)
        hub.expired = hub.signatures
        assert read(file, 100, 150_000) == DATA[100:150_000]
        assert {asked.signature for asked in hub.asked if asked.on_cdn} == {1, 2}
        hub.expired = 10**9
        with pytest.raises(RefusedError, match="does not allow it"):
            read(file, 100, 200)


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (401, "", "asks for a login"),
        (403, "GatedRepo", "it is gated"),
        (404, "EntryNotFound", "it is not there"),
    ],
)
def test_a_refusal_says_why(status: int, code: str, message: str, hub: Hub) -> None:
    hub.misbehave = lambda asked: Behaviour(status=status, headers={"X-Error-Code": code})
    with pytest.raises(RefusedError, match=message):
        opened(hub).head(100)
    assert len(hub.asked) == 1


def test_a_redirect_in_a_circle_ends(hub: Hub) -> None:
    hub.misbehave = lambda asked: Behaviour(
        status=302, headers={"Location": "/org/m/resolve/main/c.json"}
    )
    with pytest.raises(TransferError, match="10 redirects"):
        opened(hub).head(100)


def test_an_empty_file_is_said_to_be(hub: Hub) -> None:
    hub.repos["org/m"] = Repo({"m.safetensors": b""})
    with pytest.raises(TransferError, match="empty"):
        opened(hub).head(100)


def test_a_small_file_that_is_not_small_is_refused(hub: Hub) -> None:
    with pytest.raises(TransferError, match="more than the 100"):
        opened(hub).whole(100)


def test_a_reader_that_gives_up_ends_the_transfer(hub: Hub) -> None:
    file = opened(hub)
    file.head(100)
    stop = Event()
    with pytest.raises(TransferError, match="was stopped"):
        file.read_into(1, memoryview(bytearray(150_000)), told=lambda nbytes: stop.set(), stop=stop)


def test_a_wait_is_told_when_it_is_long_and_only_then() -> None:
    said: list[str] = []
    with told_if_slow(said.append, "quick"):
        pass
    with told_if_slow(said.append, "slow", seconds=0.01):
        deadline = time.monotonic() + 5
        while not said and time.monotonic() < deadline:
            time.sleep(0.01)
    assert said == ["slow"]
