"""An HTTP proxy in front of an S3 server that spoils the requests it is told to.

Headers, Host included, pass unchanged, so that the client's signatures stay valid.
"""

from __future__ import annotations

import http.client
import math
import random
import socket
import struct
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
# What happens to a request in bad weather.
WEATHER = {
    "GET": ("503", "refused", "reset", "truncated", "stalled"),
    "HEAD": ("503", "refused", "reset"),
    "PUT": ("503", "refused", "reset", "lost answer", "lost answer"),
    "DELETE": ("503", "refused", "lost answer"),
}
LONGEST_BURST = 10  # more than the client's own attempts, so that ours are needed too
NO_SPACE = b"<Error><Code>InternalError</Code><Message>write volume: no space left on device</Message></Error>"


def spoilt(body: bytes, fault: str) -> bytes:
    """A request's body after a bad wire, or a proxy that loses half of it."""
    middle = len(body) // 2
    return body[:middle] if fault == "halved" else body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *arguments: Any) -> None:
        """A client that was killed, or has waited long enough, is no news."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(*arguments)


class FaultProxy:
    """``inject("PUT", "503", "lost answer")`` spoils the next two PUT requests; every other request passes.

    Faults: ``503`` and ``full`` answer without forwarding; ``refused`` closes the connection without forwarding, and
    ``reset`` tears it down; ``lost answer`` forwards and then closes; ``truncated`` sends half of the answer's body and
    closes; ``stalled`` sends half of it and then nothing until the proxy is closed, or the client has waited for
    ``patience`` seconds (``outlasted``). ``flipped`` forwards the request's body with one bit of it changed, ``halved``
    its first half as if that were all: then the answer is the server's own.

    ``weather(rate, seed)`` spoils that share of all requests instead, 503 in bursts. ``outage`` spoils every request,
    ``delay`` is what each waits for (seconds), and ``calm`` ends all of it.
    """

    def __init__(self, endpoint: str, patience: float = 10.0) -> None:
        self._target = urlsplit(endpoint).netloc
        self._faults: list[tuple[str, str]] = []
        self._lock = threading.Lock()
        self.released = threading.Event()
        self.requests: list[str] = []
        self.outlasted = False
        self.met: Counter[str] = Counter()
        self._patience = patience
        self._rate, self._luck, self._burst = 0.0, random.Random(), 0
        self._outage: tuple[str, ...] = ()
        self._outage_ends = 0.0
        self.delay = 0.0
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def inject(self, method: str, *faults: str) -> None:
        self._faults += [(method, fault) for fault in faults]

    def weather(self, rate: float, seed: int) -> None:
        """From now on spoil this share of the requests."""
        self._rate, self._luck = rate, random.Random(seed)

    def outage(self, *faults: str, requests: float = math.inf) -> None:
        """The next so many requests meet these faults in turn; where one is none of their method, ``refused``."""
        self._outage, self._outage_ends = faults, len(self.requests) + requests

    def calm(self) -> None:
        """From now on every request passes."""
        with self._lock:
            self._faults.clear()
            self._rate, self._burst, self._outage, self.delay = 0.0, 0, (), 0.0

    @property
    def pending(self) -> list[tuple[str, str]]:
        """Faults that have not been used."""
        return list(self._faults)

    def fault_for(self, method: str) -> str | None:
        with self._lock:
            self.requests.append(method)
            for number, (wanted, fault) in enumerate(self._faults):
                if wanted == method:
                    del self._faults[number]
                    return fault
            fault = self._drawn(method) if len(self.requests) > self._outage_ends else self._out(method)
            if fault is not None:
                self.met[fault] += 1
            return fault

    def _out(self, method: str) -> str | None:
        if not self._outage:
            return None
        fault = self._outage[len(self.requests) % len(self._outage)]
        return "refused" if fault in ("truncated", "stalled") and method != "GET" else fault

    def _drawn(self, method: str) -> str | None:
        if self._burst:
            self._burst -= 1
            return "503"
        if not self._rate or self._luck.random() >= self._rate:
            return None
        fault = self._luck.choice(WEATHER.get(method, ("503",)))
        if fault == "503":
            self._burst = self._luck.randrange(LONGEST_BURST)
        return fault

    def forward(self, request: BaseHTTPRequestHandler, body: bytes) -> tuple[http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPConnection(self._target, timeout=30)
        try:
            connection.putrequest(request.command, request.path, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer, answer.read()
        finally:
            connection.close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                time.sleep(proxy.delay)
                fault = proxy.fault_for(self.command)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if fault in ("503", "full", "refused", "reset"):
                    self.close_connection = True
                    if fault == "reset":  # closing with a linger time of 0 sends RST (socket(7))
                        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    elif fault != "refused":
                        status, text = (503, SLOW_DOWN) if fault == "503" else (500, NO_SPACE)
                        self.reply(status, {"Content-Type": "application/xml"}, text, len(text))
                    return
                if fault in ("flipped", "halved"):
                    body, fault = spoilt(body, fault), None
                    self.headers.replace_header("Content-Length", str(len(body)))
                answer, content = proxy.forward(self, body)
                if fault == "lost answer":
                    self.close_connection = True
                    return
                self.answer(answer, content, fault)

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = handle_any  # noqa: N815

            def answer(self, answer: http.client.HTTPResponse, content: bytes, fault: str | None) -> None:
                dropped = ("transfer-encoding", "connection", "content-length")
                headers = {name: value for name, value in answer.getheaders() if name.lower() not in dropped}
                length = int(answer.getheader("Content-Length") or len(content))
                if fault is None:
                    self.reply(answer.status, headers, content, length)
                    return
                self.close_connection = True
                self.reply(answer.status, headers, content[: len(content) // 2], length)
                if fault == "stalled" and not proxy.released.wait(proxy._patience):
                    proxy.outlasted = True

            def reply(self, status: int, headers: dict[str, str], content: bytes, length: int) -> None:
                self.send_response_only(status)
                for name, value in {**headers, "Content-Length": str(length)}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)
                self.wfile.flush()

            def log_message(self, *_: object) -> None:
                pass

        return Handler
