"""The server of the page: what may be asked, and of whom."""

from __future__ import annotations

import errno
import ipaddress
import json
import re
import socket
import sys
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

from rpgmt.demo.limits import MAX_BYTES, MAX_SECONDS, RefusedError
from rpgmt.errors import UserError

if TYPE_CHECKING:
    from rpgmt.demo.desk import Desk

DEFAULT_PORT = 8642

_FOLDER = Path(__file__).parent
_PAGE = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/draw.js": ("draw.js", "text/javascript; charset=utf-8"),
}
_RULES = {
    # The browser itself refuses whatever would go elsewhere.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob: data:; media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_MAP = re.compile(r"/answers/(\d{1,9})/(\d{1,4})/([^/]+)\.png")


def is_local(host: str) -> bool:
    """Whether only this machine reaches a server at the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class DemoServer(ThreadingHTTPServer):
    """Listens from the start; answers once it has a desk and `serve_forever` runs.

    Args:
        host: name or address of this machine.
        port: 0 for a free one; None for the default one, or a free one where it is taken.

    Raises:
        UserError: the port is taken, or the address is not this machine's.
    """

    desk: Desk

    def __init__(self, host: str, port: int | None) -> None:
        self.local = is_local(host)
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host, DEFAULT_PORT if port is None else port), _Handler)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or port is not None:
                raise _not_bound(host, port, error) from error
            super().__init__((host, 0), _Handler)
        name = f"[{host}]" if ":" in host else host
        self.address = f"http://{name}:{self.server_port}/"

    def server_bind(self) -> None:
        # Without the parent's look-up of the machine's full name, which may ask the network and take seconds.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that hangs up is no error; anything else is a bug, with its traceback."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def _not_bound(host: str, port: int | None, error: OSError) -> UserError:
    if error.errno == errno.EADDRINUSE:
        return UserError(f"`--port` is {port}, which is taken: give another one, or none for a free one")
    if error.errno == errno.EACCES:
        return UserError(f"`--port` is {port}, which this user may not have: give one from 1024 on")
    return UserError(f"`--host` is {host}, which is no address of this machine: 127.0.0.1 is this machine alone")


class _Handler(BaseHTTPRequestHandler):
    server: DemoServer
    protocol_version = "HTTP/1.1"
    timeout: ClassVar[float] = 30  # seconds that a browser may be silent

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def _answer(self, method: Any) -> None:
        try:
            self._refuse_strangers()
            method(urlsplit(self.path))
        except RefusedError as refused:
            self.close_connection = True  # what was sent may not have been read
            self._send_json({"error": refused.words}, refused.status)
        except (ConnectionError, TimeoutError):
            raise
        except Exception:
            self.close_connection = True
            self._send_json({"error": "Something broke: the terminal says what."}, HTTPStatus.INTERNAL_SERVER_ERROR)
            raise

    def _get(self, url: Any) -> None:
        desk = self.server.desk
        if url.path in _PAGE:
            file, kind = _PAGE[url.path]
            self._send((_FOLDER / file).read_bytes(), kind)
        elif url.path == "/model":
            self._send_json(desk.model())
        elif url.path == "/queue":
            self._send_json({"queue": desk.queue})
        elif url.path == "/example.png":
            self._send(desk.example.png, "image/png")
        elif url.path == "/example.json":
            self._send_json({"boxes": desk.example.boxes})
        elif found := _MAP.fullmatch(url.path):
            number, stage, head = found.groups()
            self._send(desk.picture(int(number), int(stage), unquote(head)), "image/png")
        else:
            raise RefusedError(HTTPStatus.NOT_FOUND, "There is nothing here.")

    def _post(self, url: Any) -> None:
        if url.path != "/ask":
            raise RefusedError(HTTPStatus.NOT_FOUND, "There is nothing here.")
        try:
            boxes = json.loads(parse_qs(url.query).get("boxes", ["null"])[0])
        except (ValueError, RecursionError):
            raise RefusedError(HTTPStatus.BAD_REQUEST, "The boxes cannot be read.") from None
        image = self._body()  # before the queue: who sends slowly, or nothing more, must not hold a place in it
        with self.server.desk.in_queue():
            self._send_json(self.server.desk.ask(image, boxes))

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"\d{1,12}", length):
            raise RefusedError(HTTPStatus.LENGTH_REQUIRED, "The image's length is missing.")
        if int(length) > MAX_BYTES:
            words = f"The file has {int(length) / 2**20:.0f} MB, and {MAX_BYTES // 2**20} are the most: make it smaller."
            raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, words)
        body, end = bytearray(), time.monotonic() + MAX_SECONDS
        while piece := self.rfile.read1(min(int(length) - len(body), 2**16)):
            body += piece
            if time.monotonic() > end:
                raise RefusedError(HTTPStatus.REQUEST_TIMEOUT, "The image took too long to arrive: make it smaller.")
        return bytes(body)

    def _refuse_strangers(self) -> None:
        """Other sites' pages, which a browser lets send here, and names that someone else's server made this machine's."""
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        try:
            own = is_local(urlsplit(f"//{host}").hostname or "") or not self.server.local
            own = own and (origin is None or urlsplit(origin).netloc == host)
        except ValueError:
            own = False
        if not own:
            raise RefusedError(HTTPStatus.FORBIDDEN, f"Open {self.server.address} itself.")

    def _send_json(self, content: Any, status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(json.dumps(content, allow_nan=False).encode(), "application/json", status)

    def _send(self, content: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        headers = {"Content-Type": kind, "Content-Length": str(len(content)), "Cache-Control": "no-store"} | _RULES
        for name, value in headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """The terminal is for the address and for what goes wrong."""
