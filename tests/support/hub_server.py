"""A server that speaks those parts of the Hugging Face hub's HTTP interface that fetching files needs."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_" + "s" * 34


class HubServer:
    """Serves the files of ``folder`` as ``Org/Name`` (branch main, tag v1) and, to who has TOKEN, as ``Org/Gated``."""

    def __init__(self, folder: Path) -> None:
        self._files = {path.name: path.read_bytes() for path in folder.iterdir()}
        self.fetched: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, path: str, token: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body for a GET."""
        parts = path.strip("/").split("/")
        repository = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
        if repository not in ("Org/Name", "Org/Gated"):
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        if repository == "Org/Gated" and token != f"Bearer {TOKEN}":
            return 403, {"X-Error-Code": "GatedRepo"}, b""
        revision = parts[5] if parts[0] == "api" else parts[3]
        if revision not in ("main", "v1", COMMIT):
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        if parts[:2] == ["api", "models"]:
            return 200, {"Content-Type": "application/json"}, self._listing(repository, parts[4])
        name = "/".join(parts[4:])
        if name not in self._files:
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        return 200, {"X-Repo-Commit": COMMIT, "ETag": f'"{_digest(self._files[name])}"'}, self._files[name]

    def _listing(self, repository: str, what: str) -> bytes:
        if what == "tree":
            entries = [{"type": "file", "path": name, "size": len(data), "oid": _digest(data)}
                       for name, data in self._files.items()]  # fmt: skip
            return json.dumps(entries).encode()
        siblings = [{"rfilename": name} for name in self._files]
        return json.dumps(
            {"id": repository, "sha": COMMIT, "siblings": siblings, "tags": [], "private": False}
        ).encode()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = unquote(urlsplit(self.path).path)
                status, headers, body = hub.answer(path, self.headers.get("Authorization", ""))
                if self.command == "GET" and "/resolve/" in path and status == 200:
                    hub.fetched.append(path.rpartition("/")[2])
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def _digest(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()
