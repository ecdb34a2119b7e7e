"""What coordl asks of Ray, held against a stand-in: whose servers count, and what failures become.

(With the real one: test_ray_servers.py, which is slow.)
"""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from coordl.errors import PeerError
from coordl.integrations import ray as on_ray


class RayError(Exception):
    pass


class GetTimeoutError(RayError):
    pass


class Asked:
    def __init__(self, answer: Any) -> None:
        self.answer = answer


class Actor:
    """A node's, by what it answers: a value, or an exception."""

    def __init__(self, *answers: Any) -> None:
        self.answers, self.asked = list(answers), 0
        self.address = self.serve = SimpleNamespace(remote=self._called)

    def _called(self, *arguments: Any) -> Any:
        self.asked += 1
        answer = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
        return Asked(answer)


class Ray:
    """As much of it as is used."""

    def __init__(self) -> None:
        self.there: dict[tuple[str, str], Actor] = {}  # (namespace, name) -> it
        self.initialized, self.client = True, False
        self.made: list[dict[str, Any]] = []
        self.next = Actor("")
        self.exceptions = SimpleNamespace(RayError=RayError, GetTimeoutError=GetTimeoutError)
        self.util = SimpleNamespace(
            list_named_actors=self._named,
            get_node_ip_address=lambda: "192.0.2.7",
            client=SimpleNamespace(ray=SimpleNamespace(is_connected=lambda: self.client)),
            scheduling_strategies=SimpleNamespace(NodeAffinitySchedulingStrategy=self._on_node),
        )

    def _named(self, all_namespaces: bool) -> list[dict[str, str]]:
        assert self.initialized and all_namespaces
        return [{"namespace": of, "name": name} for of, name in self.there]

    def _on_node(self, node: str, soft: bool) -> tuple[str, bool]:
        return node, soft

    def is_initialized(self) -> bool:
        return self.initialized

    def get_actor(self, name: str, namespace: str) -> Actor:
        return self.there[namespace, name]

    def wait(self, asked: list, num_returns: int, timeout: float) -> tuple[list, list]:
        hangs = [each for each in asked if each.answer == "hangs"]
        return [each for each in asked if each not in hangs], hangs

    def get(self, asked: Any, timeout: float | None = None) -> Any:
        if isinstance(asked.answer, Exception):
            raise asked.answer
        return asked.answer

    def nodes(self) -> list[dict[str, Any]]:
        return [
            {"Alive": True, "Resources": {"CPU": 8.0}},
            {"Alive": True, "Resources": {"CPU": 8.0}},
            {"Alive": True, "Resources": {}},  # a head without workers
            {"Alive": False, "Resources": {"CPU": 8.0}},
        ]

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(get_node_id=lambda: "node7")

    def remote(self, kind: type) -> Any:
        def options(**given: Any) -> Any:
            self.made.append(given)
            return SimpleNamespace(remote=lambda *arguments: self.next)

        return SimpleNamespace(options=options)


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Ray:
    stand_in = Ray()
    monkeypatch.setitem(sys.modules, "ray", stand_in)
    monkeypatch.setattr(on_ray, "LIST_S", 0.0)
    return stand_in


def name(arena: str, node: str) -> tuple[str, str]:
    return on_ray.NAMESPACE, on_ray._start_of_names(arena) + f"0.{node}"


def test_servers_are_those_of_the_data_set_and_ours(ray) -> None:
    ray.there = {
        name("data", "a"): Actor("192.0.2.1:5"),
        name("data", "b"): Actor("192.0.2.2:5"),
        name("other", "a"): Actor("192.0.2.1:6"),
        ("default", name("data", "c")[1]): Actor("192.0.2.3:5"),
    }
    servers = on_ray.Servers("data")
    assert servers.addresses() == {"192.0.2.1:5", "192.0.2.2:5"}
    # of the nodes that can have workers, both have one
    assert servers.complete()
    assert on_ray.Servers("data").complete() is False


def test_servers_come_go_and_fail(ray, monkeypatch) -> None:
    here = ray.there
    here[name("data", "a")] = Actor("192.0.2.1:5")
    here[name("data", "hangs")] = Actor("hangs", "192.0.2.4:5")
    here[name("data", "dies")] = Actor(RayError("killed"), "192.0.2.5:5")
    here[name("data", "begins")] = Actor("", "192.0.2.6:5")  # it has no server yet
    servers = on_ray.Servers("data")
    assert servers.addresses() == {"192.0.2.1:5"}
    assert servers.addresses() == {f"192.0.2.{number}:5" for number in (1, 4, 5, 6)}
    # a known one is not asked at each look, but now and then: its server may be another
    first = here[name("data", "a")]
    assert first.asked == 1
    first.answers = ["192.0.2.1:6"]
    assert "192.0.2.1:5" in servers.addresses()
    monkeypatch.setattr(on_ray, "AGAIN_S", 0.0)
    servers._ask_again.clear()
    assert "192.0.2.1:6" in servers.addresses()
    # who has left is none any more
    del here[name("data", "a")]
    assert servers.addresses() == {f"192.0.2.{number}:5" for number in (4, 5, 6)}
    # and after ray.shutdown() nothing is asked, as that would start a cluster
    ray.initialized = False
    with pytest.raises(RuntimeError, match=r"ray\.shutdown"):
        servers.addresses()


def test_a_nodes_actor_is_its_own_and_gets_no_secret(ray, monkeypatch) -> None:
    given = []
    monkeypatch.setenv("COORDL_TOKEN", "0123456789abcdef")
    monkeypatch.setenv("COORDL_TOKEN_FILE", "/a/file")
    ray.next = Actor(("192.0.2.7:5", ""))
    remote = ray.remote

    def seen(kind: type) -> Any:
        made = remote(kind)

        def options(**named: Any) -> Any:
            actor = made.options(**named).remote()
            return SimpleNamespace(remote=lambda *arguments: given.append(arguments) or actor)

        return SimpleNamespace(options=options)

    ray.remote = seen
    assert on_ray.own_server("data", "192.0.2.7") == "192.0.2.7:5"
    (made,), ((arena, settings),) = ray.made, given
    assert arena == "data" and settings["COORDL_TOKEN_FILE"] == "/a/file"
    assert "COORDL_TOKEN" not in settings
    assert made["scheduling_strategy"] == ("node7", False) and made["name"].endswith(".node7")
    assert made["get_if_exists"] and made["lifetime"] == "detached" and made["num_cpus"] == 0


def test_what_the_actor_says_and_what_becomes_of_it_is_told(ray, monkeypatch) -> None:
    ray.next = Actor(("", "peers= needs a token"))
    with pytest.raises(PeerError, match="needs a token"):
        on_ray.own_server("data", "192.0.2.7")
    # one that leaves or is killed has a next one
    ray.next = Actor(RayError("it has left"), ("192.0.2.7:5", ""))
    assert on_ray.own_server("data", "192.0.2.7") == "192.0.2.7:5"
    # one that never runs ends in an error
    monkeypatch.setattr(on_ray, "_TRY_S", 0.3)
    ray.next = Actor(RayError("No module named 'coordl'"))
    with pytest.raises(PeerError, match="does not run: No module named 'coordl'"):
        on_ray.own_server("data", "192.0.2.7")
    ray.next = Actor(GetTimeoutError("late"))
    with pytest.raises(PeerError, match="did not start a server in 120 s"):
        on_ray.own_server("data", "192.0.2.7")


def test_a_client_of_ray_is_on_no_node(ray) -> None:
    ray.client = True
    with pytest.raises(PeerError, match=r"client \(ray://\)"):
        on_ray.own_server("data", "192.0.2.7")
    assert on_ray.running() is None  # for "auto" it is no Ray job


def test_our_address_is_rays_or_the_one_said(ray, monkeypatch) -> None:
    assert on_ray.own_host() == "192.0.2.7"
    monkeypatch.setenv("COORDL_PEERS_HOST", "198.51.100.3")
    assert on_ray.own_host() == "198.51.100.3"
