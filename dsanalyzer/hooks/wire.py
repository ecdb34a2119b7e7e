"""Messages between the job's processes and the tool: JSON over a Unix SOCK_SEQPACKET socket.

Two kinds of connection. *Events* (opens of data files) flow one way from any process. *Control* is
request and reply, from the job's main process, around each pass. Every process makes its own
connections: a forked child sees that the PID changed and connects anew.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

ADDRESS_BYTES = 107  # of sockaddr_un, less the end
MESSAGE_BYTES = 60_000  # well under the default socket buffer


@contextmanager
def address_of(path: str) -> Iterator[str]:
    """The address of the socket at `path`: by its folder's descriptor where the path is too long,
    as below a deep TMPDIR."""
    if len(os.fsencode(path)) <= ADDRESS_BYTES:
        yield path
        return
    folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{os.path.basename(path)}"
    finally:
        os.close(folder)


class Connection:
    """One process's connection; reconnects after fork. Thread-safe."""

    def __init__(self, path: str, kind: str) -> None:
        self._path = path
        self._kind = kind
        self._socket: socket.socket | None = None
        self._pid = 0
        self._lock = threading.Lock()

    def _connected(self) -> socket.socket:
        if self._socket is None or self._pid != os.getpid():
            self._lock = threading.Lock()  # the parent's may be held by a thread that is not here
            link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with address_of(self._path) as address:
                link.connect(address)
            self._socket, self._pid = link, os.getpid()
            self._send({"op": "hello", "kind": self._kind, "pid": self._pid})
        return self._socket

    def _send(self, message: dict[str, Any]) -> None:
        assert self._socket is not None
        self._socket.send(json.dumps(message).encode())

    def event(self, message: dict[str, Any]) -> None:
        """Send and forget; a tool that has gone is no reason to stop the job."""
        try:
            self._connected()
            with self._lock:
                self._send(message)
        except OSError:
            self._socket = None

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Send and wait for the reply.

        Raises:
            ConnectionError: the tool is gone.
        """
        link = self._connected()
        with self._lock:
            self._send(message)
            reply = link.recv(MESSAGE_BYTES)
        if not reply:
            raise ConnectionError("dsanalyzer is gone")
        answer: dict[str, Any] = json.loads(reply)
        return answer
