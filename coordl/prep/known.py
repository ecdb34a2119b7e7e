"""Which of the transforms we know is this object, exactly as its library wrote it?

torchvision is never imported here: an object of one of its classes can only exist where somebody
else has imported it already.
"""

from __future__ import annotations

import sys
from types import FunctionType
from typing import Any

_FLIPS = {"RandomHorizontalFlip", "RandomVerticalFlip"}
_GEOMETRY = _FLIPS | {"RandomResizedCrop", "Resize", "CenterCrop", "RandomCrop"}
_COLOUR = {"ColorJitter", "Grayscale", "RandomGrayscale"}
_TENSOR = {"PILToTensor", "ConvertImageDtype", "Normalize", "RandomErasing", "ToTensor"}
_V2 = "torchvision.transforms.v2."
_OURS = "coordl.transforms."
_PLACES: dict[str, set[str]] = {
    "torchvision.transforms.transforms": _GEOMETRY | _COLOUR | _TENSOR | {"Compose"},
    _V2 + "_container": {"Compose"},
    _V2 + "_geometry": _GEOMETRY,
    _V2 + "_color": _COLOUR,
    _V2 + "_augment": {"RandomErasing"},
    _V2 + "_type_conversion": {"PILToTensor", "ToImage"},
    _V2 + "_misc": {"ToDtype", "ConvertImageDtype", "Normalize"},
    _V2 + "_deprecated": {"ToTensor"},
    _OURS + "container": {"Compose"},
    _OURS + "geometry": _GEOMETRY,
    _OURS + "colour": _COLOUR,
    _OURS + "tensor": _TENSOR,
}


class Unknown(Exception):
    """Not one of the transforms we know, or an altered one; says why in user's words."""


def name_of(transform: Any) -> str:
    """The class name of a known, unaltered transform.

    Raises:
        Unknown: another class, a subclass, an overridden or patched method, a hook.
    """
    kind = type(transform)
    module, name = kind.__module__, kind.__qualname__
    if name not in _PLACES.get(module, ()):
        for parent in kind.__mro__[1:]:
            if parent.__qualname__ in _PLACES.get(parent.__module__, ()):
                raise Unknown(f"{name} is a subclass of {parent.__qualname__} and may do otherwise")
        raise Unknown(f"{name} has no native form")
    if getattr(sys.modules.get(module), name, None) is not kind:
        raise Unknown(f"{name} is not the class that {module} holds now")
    _refuse_overrides(transform, name)
    _refuse_patches(kind, name)
    return name


def _refuse_overrides(transform: Any, name: str) -> None:
    kind = type(transform)
    for attribute, value in vars(transform).items():
        if callable(value) and callable(getattr(kind, attribute, None)):
            raise Unknown(f"{name}.{attribute} is overridden on this object")
    for hooks in ("_forward_hooks", "_forward_pre_hooks"):
        if getattr(transform, hooks, None):
            raise Unknown(f"{name} has a forward hook")


def _refuse_patches(kind: type, name: str) -> None:
    root = kind.__module__.split(".")[0]
    for cls in kind.__mro__:
        if cls.__module__.split(".")[0] != root:
            continue
        for attribute, value in vars(cls).items():
            function = getattr(value, "__func__", value)  # unwraps static and class methods
            if isinstance(function, FunctionType) and function.__module__.split(".")[0] != root:
                raise Unknown(f"{name}.{attribute} is patched by {function.__module__}")
