"""state_dict() and load_state_dict() of a loader, between its passes and in them."""

from __future__ import annotations

import copy
from typing import Any

from coordl.delivery.position import VERSION, Position, Saved, sampler_epoch
from coordl.errors import StateError


class Resume:
    """One loader's side of it. It belongs to a process.

    Attributes:
        pending: the state the next iterator goes on from.
        early: an iterator made because a state was asked for; the next one the user gets.
        position: of the iterator made last.
    """

    def __init__(self) -> None:
        self.pending: dict[str, Any] | None = None
        self.early: Any = None
        self.position: Position | None = None

    def take_early(self) -> Any:
        early, self.early = self.early, None
        return early

    def saved(self, loader: Any) -> Saved | None:
        """What the next iterator goes on from.

        Raises:
            StateError: the loader cannot; the state stays pending.
        """
        return None if self.pending is None else Saved.of(self.pending, loader)

    def begin(self, loader: Any, native: bool, turn: int = 0) -> Position:
        """The position of a new pass."""
        self.position = Position(loader, self.saved(loader), native, turn)
        self.pending = None
        return self.position

    def state_dict(self, loader: Any) -> dict[str, Any]:
        position = self.position
        if self.pending is None and position is not None and position.is_void():
            self.pending, position = position.begun_from or None, None
        if self.pending is not None:
            return copy.deepcopy(self.pending)
        if position is None:
            self.early = iter(loader)
            position = self.position
        assert position is not None
        return copy.deepcopy(position.state())

    def load(self, loader: Any, state: dict[str, Any]) -> None:
        self.early = self.position = self.pending = None
        if not state:
            return
        if state.get("coordl") != VERSION:
            raise StateError(
                "this is no state of a coordl.DataLoader of this version: "
                f"'coordl' is {state.get('coordl')!r} in it, not {VERSION}"
            )
        self.pending = copy.deepcopy(state)
        sampler, _ = sampler_epoch(loader)
        if sampler is not None:
            sampler.set_epoch(state["epoch"])
