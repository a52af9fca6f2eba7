"""A server that speaks just enough S3 to be written to, and ignores every condition, as several real ones do."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class CarelessS3:
    """Objects in memory; PUT always overwrites."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> CarelessS3:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        objects = self.objects

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_PUT(self) -> None:
                objects[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
                self.reply(200, b"")

            def do_GET(self) -> None:
                data = objects.get(self.path)
                if data is None:
                    self.reply(404, b"<Error><Code>NoSuchKey</Code><Message>no such key</Message></Error>")
                    return
                asked = self.headers.get("Range")
                if asked is None:
                    self.reply(200, data)
                    return
                first, last = (int(number) for number in asked.removeprefix("bytes=").split("-"))
                part = data[first : last + 1]
                self.reply(206, part, {"Content-Range": f"bytes {first}-{first + len(part) - 1}/{len(data)}"})

            def do_DELETE(self) -> None:
                objects.pop(self.path, None)
                self.reply(204, b"")

            def reply(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
                self.send_response_only(status)
                fixed = {"ETag": '"1"', "Last-Modified": "Sun, 22 Nov 2026 00:00:00 GMT"}
                for name, value in {**fixed, **(headers or {}), "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler
