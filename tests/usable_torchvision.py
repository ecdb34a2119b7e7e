"""The real torchvision, also its CUDA build beside a CPU torch.

Importing this makes `import torchvision` work: its compiled operators cannot load there, but
transforms need none of them. Raises ModuleNotFoundError where torchvision is absent.
"""

import importlib
import sys

try:
    module = importlib.import_module("torchvision")
except RuntimeError:
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    import torch

    # Its definitions end with the object.
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    module = importlib.import_module("torchvision")
importlib.import_module("torchvision.transforms.v2")
