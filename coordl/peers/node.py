"""This node's own server: found where it runs already, else started.

It is a process of its own session: what restarts or kills this process leaves it alone, so that
other servers go on, and the next start of the job finds the cache as it was.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from typing import Any

import psutil

from coordl.errors import PeerError
from coordl.peers.address import record_path, resolved, shared_arenas, split
from coordl.peers.secret import Secrets

_START_S = 60.0  # pyarrow's import on a busy machine
_ENDS_S = 2.0  # that the processes of a job before this one may take to end
_KILLED_MOST = 3  # times at its start, before that is an error
_SERVER = ("-m", "coordl.peers.server")
# Its log, of which users can make nothing.
_OF_GRPC = re.compile(r"[IWEF]\d{4} |WARNING: All log messages before absl::")
_STARTED: list[subprocess.Popen[bytes]] = []  # a child is collected when the next one is started


def own_server(arena: str, host: str, port: int = 0) -> str:
    """The address of the server beside that arena, started where there is none.

    One that listens elsewhere or has other secrets than this process, and that no loader uses,
    lingers after another job: it is replaced. `port` 0 is any.

    Raises:
        PeerError: it cannot be started, or another job's loaders use it as it is; says why.
    """
    deadline = time.monotonic() + _START_S
    patient_until = time.monotonic() + _ENDS_S
    started: subprocess.Popen[bytes] | None = None
    killed = 0
    with tempfile.TemporaryFile() as said:
        while (record := running(arena)) is None or (why := _unfit(record, host, port)):
            if record is not None:
                if _is_held(arena):
                    if time.monotonic() < patient_until:  # a job that is just ending
                        time.sleep(0.05)
                        continue
                    raise PeerError(
                        f"this node's server of this data set runs at {record['address']} for "
                        f"another job, {why}: give both jobs the same, or end the other"
                    )
                with suppress(ProcessLookupError):
                    os.kill(int(record["pid"]), signal.SIGTERM)
                time.sleep(0.05)
                continue
            _STARTED[:] = [each for each in _STARTED if each.poll() is None]
            if started is None:
                started = _start(arena, host, port, said)
            elif (code := started.poll()) == 3:  # another process of this node was first
                started = None
            elif code is not None and code < 0 and killed < _KILLED_MOST:
                started, killed = None, killed + 1
            elif code is not None:
                said.seek(0)
                lines = said.read().decode(errors="replace").strip().splitlines()
                words = "\n".join(each for each in lines if not _OF_GRPC.match(each))
                words = (words or f"it ended with {code}") + _port_taken_by(arena, host, port)
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


def _port_taken_by(arena: str, host: str, port: int) -> str:
    """Who of this node's servers listens there; empty: none of them."""
    for other in shared_arenas():
        record = running(other) if port and other != arena else None
        if record is not None and _is_at(record, host, port):
            return (
                ", by this node's server of another data set: give each data set a list with "
                "ports of its own"
            )
    return ""


def hold(arena: str) -> int | None:
    """Says that a loader uses the server of that arena, until the descriptor is closed.

    None: it has gone meanwhile.
    """
    try:
        record = os.open(record_path(arena), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    fcntl.fcntl(record, fcntl.F_OFD_SETLK, _lock_of(fcntl.F_RDLCK))
    return record


def _is_held(arena: str) -> bool:
    try:
        record = os.open(record_path(arena), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.fcntl(record, fcntl.F_OFD_SETLK, _lock_of(fcntl.F_WRLCK))
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(record)


def _lock_of(kind: int) -> bytes:
    # struct flock: the whole file. Apart from flock(), by which the server locks it. That of an
    # open file, as a process's own ends when any descriptor of the file is closed.
    return struct.pack("hhqqi0q", kind, os.SEEK_SET, 0, 0, 0)


def _unfit(record: dict[str, Any], host: str, port: int) -> str:
    """Why that server is not the one wanted; empty where it is."""
    from coordl.peers import wire  # brings pyarrow

    secrets = Secrets.from_environment()
    if record.get("settings") != secrets.fingerprint(str(record["run"]), wire.VERSION):
        return "with another token, TLS certificate or version"
    if not _is_at(record, host, port):
        shown = f"[{host}]" if ":" in host else host
        return f"not at {shown}:{port}" if port else f"not at {shown}"
    return ""


def _is_at(record: dict[str, Any], host: str, port: int) -> bool:
    its_host, its_port = split(str(record["address"]))
    same = its_host == host or bool(resolved(its_host) & resolved(host))
    return same and port in (0, its_port)


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
