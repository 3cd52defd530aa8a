"""An HTTP server for tests that answers as it is told to: in front of another server, or of a folder.

It reads a request, asks whoever is behind it and hands the answer on, or spoils it; all requests are recorded.
"""

import hashlib
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import unquote


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Record a request. `range` and `if_match`: these headers, empty where there were none."""

    method: str
    path: str
    range: str
    if_match: str


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Say how an answer is spoiled; by default it is not.

    `status`: answered, with `body`, and nobody behind is asked. `headers`: instead of the answer's own. `cut_at`: the
    connection ends after so many bytes of the body; -1: before the answer. `flip_at`: this byte of the body is another.
    `delay_s`: how long the answer is kept back.
    """

    status: int = 0
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_at: int | None = None
    flip_at: int | None = None
    delay_s: float = 0


class LocalServer(ThreadingHTTPServer):
    """Listen on a port of its own until it is closed. `address`: host and port."""

    request_queue_size = 128

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.address = f"127.0.0.1:{self.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class QuietHandler(BaseHTTPRequestHandler):
    """Answer without a word on standard error; a side may go away at any time."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer in one packet: a second one would wait 40 ms for the client's acknowledgement

    def log_message(self, *_: object) -> None:
        pass

    def handle(self) -> None:
        with suppress(OSError, HTTPException):
            super().handle()


class FaultyProxy(LocalServer):
    """Listen on a port of its own, in front of a server (`host:port`) or a folder, until it is closed.

    `address`: host and port. `asked`: the requests so far.
    """

    def __init__(self, behind: str | Path) -> None:
        super().__init__(_Handler)
        self.behind = behind
        self.asked: list[Asked] = []
        self._scripts: list[tuple[str, Iterator[Fault | None]]] = []
        self._lock = threading.Lock()

    def spoil(self, path: str, faults: Iterable[Fault | None]) -> None:
        """Have the next requests for a path that holds this text meet a fault each, in order; None: none."""
        with self._lock:
            self._scripts.append((path, iter(faults)))

    def asked_for(self, text: str, method: str = "GET") -> list[Asked]:
        """Return the requests for paths that hold a text."""
        return [asked for asked in self.asked if text in asked.path and asked.method == method]

    def next_fault(self, asked: Asked) -> Fault:
        """Record a request; return what it meets."""
        with self._lock:
            self.asked.append(asked)
            for path, faults in self._scripts:
                if path in asked.path and (fault := next(faults, None)):
                    return fault
        return Fault()


class _Handler(QuietHandler):
    server: FaultyProxy

    def finish(self) -> None:
        with suppress(OSError):
            super().finish()

    def _answer(self) -> None:
        range_, if_match = (self.headers.get(name, "") for name in ("Range", "If-Match"))
        asked = Asked(method=self.command, path=self.path, range=range_, if_match=if_match)
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault, behind = self.server.next_fault(asked), self.server.behind
        time.sleep(fault.delay_s)
        self.close_connection |= fault.cut_at is not None
        if fault.cut_at == -1:
            return
        if fault.status:
            self._send(fault.status, {}, fault.body, fault)
        elif isinstance(behind, Path):
            self._send(*_from_folder(behind, asked), fault)
        else:
            self._send(*self._forward(behind, sent), fault)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer  # noqa: N815

    def _forward(self, behind: str, sent: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = HTTPConnection(behind, timeout=30)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                connection.putheader(name, value)
            connection.endheaders(sent)
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        finally:
            connection.close()

    def _send(self, status: int, headers: dict[str, str], content: bytes, fault: Fault) -> None:
        body = bytearray(content)
        if fault.flip_at is not None:
            body[fault.flip_at] ^= 0xFF
        all_headers = {"Content-Length": str(len(body))} | {name.title(): value for name, value in headers.items()}
        all_headers |= {name.title(): value for name, value in fault.headers.items()}
        self.send_response_only(status)
        for name in all_headers.keys() - {"Connection", "Transfer-Encoding"}:
            self.send_header(name, all_headers[name])
        self.end_headers()
        self.wfile.write(body[: fault.cut_at] if self.command != "HEAD" else b"")


def _from_folder(root: Path, asked: Asked) -> tuple[int, dict[str, str], bytes]:
    """Answer as a plain web server does: GET and HEAD, ranges, ETags."""
    path = root / unquote(asked.path).lstrip("/")
    if asked.method not in ("GET", "HEAD"):
        return 405, {}, b""
    if not path.is_file():
        return 404, {}, b""
    content = path.read_bytes()
    headers = {"Etag": f'"{hashlib.md5(content).hexdigest()}"', "Content-Length": str(len(content))}
    if asked.if_match not in ("", headers["Etag"]):
        return 412, {}, b""
    if match := re.fullmatch(r"bytes=(\d+)-(\d*)", asked.range):
        first, last = int(match[1]), min(int(match[2] or len(content)), len(content) - 1)
        headers |= {"Content-Range": f"bytes {first}-{last}/{len(content)}", "Content-Length": str(last + 1 - first)}
        return 206, headers, content[first : last + 1]
    return 200, headers, content
