"""This node's own server: found where it runs already, else started.

It is a process of its own session: what restarts or kills this process leaves it alone, so that
other servers go on, and the next start of the job finds the cache as it was.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

import psutil

from coordl.errors import PeerError
from coordl.peers.address import record_path

_START_S = 60.0  # pyarrow's import on a busy machine
_KILLED_MOST = 3  # times at its start, before that is an error
_SERVER = ("-m", "coordl.peers.server")
_STARTED: list[subprocess.Popen[bytes]] = []  # a child is collected when the next one is started


def own_server(arena: str, host: str, port: int = 0) -> str:
    """The address of the server beside that arena, started where there is none.

    Raises:
        PeerError: it cannot be started; says why.
    """
    deadline = time.monotonic() + _START_S
    started: subprocess.Popen[bytes] | None = None
    killed = 0
    with tempfile.TemporaryFile() as said:
        while (record := running(arena)) is None:
            _STARTED[:] = [each for each in _STARTED if each.poll() is None]
            if started is None:
                started = _start(arena, host, port, said)
            elif (code := started.poll()) == 3:  # another process of this node was first
                started = None
            elif code is not None and code < 0 and killed < _KILLED_MOST:
                started, killed = None, killed + 1
            elif code is not None:
                said.seek(0)
                words = said.read().decode(errors="replace").strip() or f"it ended with {code}"
                raise PeerError(f"this node's server for peers= cannot be started: {words}")
            if time.monotonic() > deadline:
                raise PeerError(f"this node's server for peers= did not start in {_START_S:.0f} s")
            time.sleep(0.05)
    return str(record["address"])


def running(arena: str) -> dict[str, Any] | None:
    """What the live server of that arena says of itself; None where there is none."""
    try:
        record = os.open(record_path(arena), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        try:
            fcntl.flock(record, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None  # nobody holds it: its server was killed
        except BlockingIOError:
            told = os.pread(record, 4096, 0)
    finally:
        os.close(record)
    if not told:
        return None  # about to say where it listens
    record_told = dict(json.loads(told))
    # Between its lock and its first word a server's record is that of the one before it.
    return record_told if psutil.pid_exists(int(record_told["pid"])) else None


def _start(arena: str, host: str, port: int, said: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, *_SERVER, "--name", arena]
    command += ["--host", host, "--port", str(port)]
    command += ["--linger", os.environ.get("COORDL_PEERS_LINGER_S", "10")]
    started = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=said,
        start_new_session=True,
    )
    _STARTED.append(started)
    return started
