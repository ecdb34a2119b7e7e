"""Ray: an actor on each node keeps the node's server of a data set, and tells others where it is.

Ray ends the children of a worker with it. So a server that a training worker started would end at
each restart of the training, and with it the cache. The actor is of nobody's job: it is detached,
and leaves when its server has ended, which is when nobody uses the arena any more. Its name says
whose it is, so that the list of named actors is the list of members.

Ray is imported where it is used, never by importing coordl.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import threading
import time
from typing import Any

from coordl import _native
from coordl.errors import PeerError
from coordl.peers import node

NAMESPACE = "coordl"
EXTRA = "pip install 'data-stall-toolkit[ray]'"
ASK_S = 2.0  # what an actor has to say an address in
LIST_S = 2.0  # between looks at who there is; Ray's own store answers all processes of a cluster
AGAIN_S = 10.0  # a known actor is asked again: its server may be another by now
_SERVE_S = 120.0  # a worker process for the actor, with coordl imported, on a busy machine
_TRY_S = 30.0  # for so long, while actors end instead of answering
_IDLE_S = 5.0  # an actor stays for so long without a server, should one be wanted again

# Where the secrets lie may go through Ray's store; what they are may not.
_SECRET = "COORDL_TOKEN"


def running() -> Any:
    """The module `ray`, where this process is on a node of a Ray cluster; else None. Imports
    nothing."""
    ray = _initialized()
    return None if ray is None or _is_client(ray) else ray


def needed() -> Any:
    """The module `ray`. Raises PeerError: this process is on no node of a Ray cluster."""
    ray = _initialized()
    if ray is None:
        raise PeerError(
            "peers='ray' shares caches among the nodes of a Ray cluster, and this process is in "
            "none: call ray.init() before the first epoch, or make the loader in a Ray task, actor "
            "or Train worker"
        )
    if _is_client(ray):
        raise PeerError(
            "peers='ray' needs a process on a node of the cluster, and this one is a client "
            "(ray://): make the loader in a Ray task, actor or Train worker"
        )
    return ray


def _initialized() -> Any:
    ray = sys.modules.get("ray")
    return ray if ray is not None and ray.is_initialized() else None


def _is_client(ray: Any) -> bool:
    return bool(ray.util.client.ray.is_connected())


def own_host() -> str:
    """The address at which other nodes reach this one: COORDL_PEERS_HOST, else Ray's for it."""
    return os.environ.get("COORDL_PEERS_HOST") or str(needed().util.get_node_ip_address())


def own_server(arena: str, host: str, port: int = 0) -> str:
    """The address of this node's server for that arena; its actor starts it where there is none.

    Raises:
        PeerError: it cannot be started; says why.
    """
    ray = needed()
    began = time.monotonic()
    while True:
        try:
            asked = _keeper(ray, arena).serve.remote(host, port)
            address, why = ray.get(asked, timeout=_SERVE_S)
        except ray.exceptions.GetTimeoutError:
            raise PeerError(
                f"this node's actor for peers= did not start a server in {_SERVE_S:.0f} s"
            ) from None
        except Exception as error:
            # It was leaving, or has been killed: there is a next one. (And when Ray's own store is
            # away, Ray raises exceptions of several kinds.)
            if time.monotonic() - began > _TRY_S:
                raise PeerError(f"this node's actor for peers= does not run: {error}") from error
            time.sleep(0.2)
            continue
        if why:
            raise PeerError(why)
        return str(address)


def _keeper(ray: Any, arena: str) -> Any:
    """This node's actor for the arena, found or made."""
    here = ray.get_runtime_context().get_node_id()
    settings = {
        name: value
        for name, value in os.environ.items()
        if name.startswith("COORDL_") and name != _SECRET
    }
    strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(here, soft=False)
    kept = ray.remote(Keeper).options(
        name=_start_of_names(arena) + f"{_directory_digest()}.{here}",
        namespace=NAMESPACE,
        get_if_exists=True,
        lifetime="detached",
        scheduling_strategy=strategy,
        num_cpus=0,
        max_restarts=-1,  # killed: Ray starts it again, and it finds its server running
        max_concurrency=8,  # who asks for the address does not wait for a server's start
    )
    return kept.remote(arena, settings)


def _start_of_names(arena: str) -> str:
    return f"peers.{os.geteuid()}.{arena}."


def _directory_digest() -> str:
    """Containers and tests have several directories of arenas on one node."""
    return hashlib.blake2b(_native.arena_directory().encode(), digest_size=4).hexdigest()


class Keeper:
    """What runs in the actor: it holds the node's server process as its child.

    Args:
        arena: the name.
        settings: the environment of who made it, so that both mean the same directory of arenas.
            A token comes to the actor as it does to all: by a file, or the runtime_env of the job.
    """

    def __init__(self, arena: str, settings: dict[str, str]) -> None:
        import ray

        os.environ.update(settings)
        self._arena = arena
        self._starting = 0
        self._lock = threading.Lock()
        self._self = ray.get_runtime_context().current_actor
        threading.Thread(target=self._leave_with_server, daemon=True).start()

    def serve(self, host: str, port: int) -> tuple[str, str]:
        """(address, ""), or ("", why there is none)."""
        with self._lock:
            self._starting += 1
        try:
            return node.own_server(self._arena, host, port), ""
        except PeerError as error:
            return "", str(error)
        finally:
            with self._lock:
                self._starting -= 1

    def address(self) -> str:
        """Empty where no server runs now."""
        record = node.running(self._arena)
        return "" if record is None else str(record["address"])

    def leave(self) -> None:
        """Ends the actor."""
        import ray

        end: Any = ray.actor.exit_actor
        end()

    def _leave_with_server(self) -> None:
        needed_at = time.monotonic()
        while time.monotonic() - needed_at < _IDLE_S:
            time.sleep(0.5)
            if self._starting or node.running(self._arena) is not None:
                needed_at = time.monotonic()
        self._self.leave.remote()


class Servers:
    """The servers of a Ray cluster that hold one data set; a membership.Source.

    Args:
        arena: its name.
    """

    store = "Ray"

    def __init__(self, arena: str) -> None:
        self._start = _start_of_names(arena)
        self._known: dict[str, str] = {}  # name of the actor -> address
        self._ask_again: dict[str, float] = {}
        self._listed_at = -LIST_S

    def addresses(self) -> set[str]:
        """Raises RuntimeError: this process has left the cluster; RayError: Ray does not answer."""
        ray = running()
        if ray is None:  # asking would start a cluster
            raise RuntimeError("ray.shutdown() was called")
        now = time.monotonic()
        pause = LIST_S if self._known else 0.1
        if now - self._listed_at >= pause:
            self._listed_at = now
            self._look(ray, now)
        return set(self._known.values())

    def _look(self, ray: Any, now: float) -> None:
        there = [
            each["name"]
            for each in ray.util.list_named_actors(all_namespaces=True)
            if each["namespace"] == NAMESPACE and each["name"].startswith(self._start)
        ]
        self._known = {name: self._known[name] for name in there if name in self._known}
        asked = {}
        for name in there:
            if name not in self._known or now >= self._ask_again.get(name, 0.0):
                with contextlib.suppress(ValueError):  # it has left meanwhile
                    asked[ray.get_actor(name, namespace=NAMESPACE).address.remote()] = name
        if not asked:
            return
        told, _ = ray.wait(list(asked), num_returns=len(asked), timeout=ASK_S)
        for answer in told:
            name = asked[answer]
            try:
                address = str(ray.get(answer))
            except ray.exceptions.RayError:
                continue  # killed or about to leave: asked again at the next look
            if address:
                self._known[name], self._ask_again[name] = address, now + AGAIN_S

    def complete(self) -> bool:
        """Whether each node that can have workers has one. Where some have no loader, who begins
        waits for them as long as settling may take."""
        ray = running()
        if ray is None:
            return False
        able = [each for each in ray.nodes() if each["Alive"] and each["Resources"].get("CPU")]
        return len(self._known) >= len(able)
