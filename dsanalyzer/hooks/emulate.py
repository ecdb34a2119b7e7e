"""An accelerator that is not there: a device queue with deadlines in place of the model's compute.

After one real step the modules whose parameters the optimizer holds are stubbed: they return
outputs of the learned shape that still take part in autograd, their parameters get zero gradients,
and the optimizer finds nothing to update. What is left of a step is the host's own work, as when a
GPU computes. Time is kept by a device queue with absolute deadlines: a step of B samples occupies
the device for B / rate seconds, forward-only calls for a third of that, and the host may run
QUEUE_STEPS ahead, as CUDA lets it, and otherwise sleeps. Losses are computed by the job as ever.

Not emulated: the synchronisation that `loss.item()` would cause, and copies to the device.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from dsanalyzer.measure import timing

QUEUE_STEPS = 2  # steps the host may be ahead of the device
FORWARD_SHARE = 1 / 3  # of a training step: backward costs about twice the forward pass


class DeviceQueue:
    """When the emulated device will have done its work. Times in seconds of `timing.clock`.

    With a `trace` (seconds per sample of recorded steps) the steps take its times, over and over.
    """

    def __init__(self, samples_per_s: float, trace: Sequence[float] = ()) -> None:
        self.samples_per_s = samples_per_s
        self._per_sample_s = itertools.cycle(trace or [1 / samples_per_s])
        self._free_at = 0.0
        self._ends: deque[float] = deque()

    def submit(self, samples: float) -> None:
        """Give the device the work of a step; sleeps while it is QUEUE_STEPS behind."""
        self._free_at = max(self._free_at, timing.clock()) + samples * next(self._per_sample_s)
        self._ends.append(self._free_at)
        if len(self._ends) > QUEUE_STEPS:
            self._sleep_until(self._ends.popleft())

    def synchronize(self) -> None:
        self._sleep_until(self._free_at)
        self._ends.clear()

    @staticmethod
    def _sleep_until(deadline: float) -> None:
        remaining = deadline - timing.clock()
        if remaining > 0:
            timing.sleep(remaining)


class Emulator:
    """Learns the models from their first real steps, then stands in for them."""

    def __init__(
        self, samples_per_s: float, optimizer_module: ModuleType, trace: Sequence[float] = ()
    ) -> None:
        self.queue = DeviceQueue(samples_per_s, trace)
        self._traced = f", as in a trace of {len(trace)} steps," if trace else ""
        self.how: str | None = None
        self.owed: float | None = None  # samples of the minibatch that is trained on, until paid
        self._calls: dict[int, tuple[Any, int, Any]] = {}  # outermost: module, batch, output
        self._depth = 0
        self._parked: dict[int, list[tuple[Any, Any]]] = {}  # by optimizer whose model is stubbed
        self._hooks: list[Any] = []
        optimizer_module.register_optimizer_step_pre_hook(self._before_step)
        optimizer_module.register_optimizer_step_post_hook(self._after_step)

    def watch(self) -> None:
        """Follow outermost module calls from now on, until `settle`."""
        from torch import Tensor
        from torch.nn.modules import module
        from torch.utils._pytree import tree_map_only

        def before(_module: Any, _inputs: Any) -> None:
            self._depth += 1

        def after(called: Any, inputs: Any, output: Any) -> None:
            self._depth -= 1
            if self._depth == 0 and called.training:
                kept = tree_map_only(Tensor, lambda t: t.detach().clone(), output)
                self._calls[id(called)] = (called, _batch_size(inputs), kept)

        self._hooks = self._hooks or [
            module.register_module_forward_pre_hook(before),
            module.register_module_forward_hook(after),
        ]

    def settle(self) -> None:
        """Everything that trains has been seen: stop following calls."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        self._calls.clear()

    def synchronize(self) -> None:
        self.queue.synchronize()

    def _submit(self, samples: float, learning: bool) -> None:
        """A step is paid for once, whatever modules it calls: by the first that learns."""
        if not learning:
            self.queue.submit(samples * FORWARD_SHARE)
        elif self.owed != 0:
            self.queue.submit(samples if self.owed is None else self.owed)
            self.owed = 0 if self.owed is not None else None

    def _before_step(self, optimizer: Any, _args: Any, _kwargs: Any) -> None:
        """Without gradients the optimizer's own loop finds nothing to do: park them."""
        if id(optimizer) not in self._parked:
            return
        held = [(p, p.grad) for p in _parameters(optimizer) if p.grad is not None]
        self._parked[id(optimizer)] = held
        for p, _ in held:
            p.grad = None

    def _after_step(self, optimizer: Any, _args: Any, _kwargs: Any) -> None:
        for p, grad in self._parked.get(id(optimizer), ()):
            p.grad = grad
        if id(optimizer) in self._parked:
            return
        held = {id(p) for p in _parameters(optimizer)}
        for module, batch, output in list(self._calls.values()):
            if held.isdisjoint(id(p) for p in module.parameters()):
                continue
            del self._calls[id(module)]
            module.forward = _stub_forward(module, batch, output, self._submit)
            self._parked[id(optimizer)] = []
            self.how = (
                f"{type(module).__name__}.forward replaced by a device queue of "
                f"{self.queue.samples_per_s:g} samples/s{self._traced} after one real step"
            )


def _parameters(optimizer: Any) -> list[Any]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _batch_size(inputs: Any) -> int:
    """Length of the first dimension of the first tensor found."""
    import torch
    from torch.utils._pytree import tree_leaves

    for leaf in tree_leaves(inputs):
        if isinstance(leaf, torch.Tensor) and leaf.dim() > 0:
            return int(leaf.shape[0])
    return 1


def _stub_forward(
    module: Any, learned_batch: int, kept: Any, submit: Callable[[float, bool], None]
) -> Any:
    import torch
    from torch.utils._pytree import tree_map_only

    parameters = [p for p in module.parameters() if p.requires_grad]
    zeros = [torch.zeros_like(p) for p in parameters]
    anchor = torch.zeros((), requires_grad=True)

    class _Emulated(torch.autograd.Function):
        """Passes values through; backward leaves zero gradients on the module's parameters."""

        @staticmethod
        def forward(ctx: Any, anchor: Any, values: Any) -> Any:
            return values.clone()

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            for p, zero in zip(parameters, zeros, strict=True):
                if p.grad is None:
                    p.grad = zero
            return None, None

    def forward(*args: Any, **kwargs: Any) -> Any:
        batch = _batch_size((args, kwargs))
        submit(batch, torch.is_grad_enabled() and module.training)

        def sized(values: Any) -> Any:
            if values.dim() and values.shape[0] == learned_batch and batch != learned_batch:
                rows = torch.arange(batch, device=values.device) % learned_batch
                values = values[rows]
            if not (values.is_floating_point() and torch.is_grad_enabled()):
                return values.clone()
            return _Emulated.apply(anchor, values)  # type: ignore[no-untyped-call]

        return tree_map_only(torch.Tensor, sized, kept)

    return forward
