"""An HTTP server that misbehaves when told to: refuses, cuts off, stalls, replaces its objects."""

from __future__ import annotations

import socket
import struct
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class MoodyServer:
    """Serves `objects` (path: content) at `url`, each with an ETag of its content.

    Attributes:
        moods: by path, what the next GETs do, in order: an int is a status to refuse with, "cut"
            ends the body early, "reset" the connection, "stall" answers never, "replace" puts
            `replacement` in the object's place before it answers. After that, and elsewhere, all is
            well.
        head_moods: the same for HEADs: statuses only.
        requests: (method, path), in order.
        etags, sizes: False: the answer has none.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.replacement = b""
        self.moods: dict[str, list[int | str]] = defaultdict(list)
        self.head_moods: dict[str, list[int]] = defaultdict(list)
        self.requests: list[tuple[str, str]] = []
        self.etags = self.sizes = True
        self._released = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.0"  # a connection for each request: none is left over

            def do_HEAD(self) -> None:
                outer._answer(self, False)

            def do_GET(self) -> None:
                outer._answer(self, True)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def gets(self, path: str) -> int:
        return self.requests.count(("GET", path))

    def close(self) -> None:
        self._released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, to: BaseHTTPRequestHandler, with_body: bool) -> None:
        path = to.path
        self.requests.append((to.command, path))
        moods = self.moods[path] if with_body else self.head_moods[path]
        mood = moods.pop(0) if moods else None
        if isinstance(mood, int):
            to.send_response(mood)
            to.send_header("Retry-After", "0")
            to.send_header("Content-Length", "0")
            to.end_headers()
            return
        if mood == "reset":
            to.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            to.connection.close()
            return
        if mood == "stall":
            self._released.wait()
            return
        if mood == "replace":
            self.objects[path] = self.replacement
        data = self.objects.get(path)
        to.send_response(404 if data is None else 200)
        if data is not None and self.etags:
            to.send_header("ETag", f'"{hash(data):x}"')
        if self.sizes:
            to.send_header("Content-Length", str(len(data or b"")))
        to.end_headers()
        if with_body:
            body = data or b""
            to.wfile.write(body[: len(body) // 2] if mood == "cut" else body)
