"""An image folder whose samples begin with a native pass and end in the user's own Python.

For worker processes: Python transforms would hold each other up in threads, and the global
generators they draw from cannot be keyed for one thread alone.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import torch

from coordl import _native
from coordl.fetch.folder import Folder
from coordl.fetch.source import CachedFolder, FolderItems
from coordl.fetch.tally import Tally
from coordl.prep.keyed import current_key
from coordl.prep.recipe import Prefix
from coordl.prep.vision import prepare_image
from coordl.sources.image_folder import open_item

_STORED = {
    torch.uint8: np.uint8,
    torch.float32: np.float32,
    torch.float16: np.float16,
    torch.bfloat16: np.uint16,  # its bits
}


class PrefixedFolder(CachedFolder):
    """Samples of a folder: its first transforms natively, the rest as the user wrote them.

    The native draws of a sample have the key that native threads would use where the data set is
    keyed. Else one draw from torch's global generator is their key, where the first of the
    transforms would have drawn: so they follow its seed in a worker.
    """

    def __init__(
        self, folder: Folder, files: FolderItems, prefix: Prefix, tally: Tally | None = None
    ) -> None:
        super().__init__(folder, files, tally)
        self.prefix = prefix
        self._pass: _native.Pass | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_pass": None}  # made anew in each process

    def _opened(self, data: bytes | memoryview, index: int) -> Any:
        plan = self.prefix.plan
        if self._pass is None:
            self._pass = plan.native_pass()
        keyed = current_key()
        key = (
            (*keyed, index) if keyed else (int(torch.empty((), dtype=torch.int64).random_()), 0, 0)
        )
        out = np.empty(plan.stored_shape, _STORED[plan.dtype])
        if not _native.prepare(data, self._pass, *key, out):
            image = open_item(data)  # Pillow decides whether and how it decodes
            out = prepare_image(image, plan, *key)
        return self._handed_over(out)

    def _handed_over(self, out: np.ndarray) -> Any:
        if self.prefix.takes == "image":
            from PIL import Image

            return Image.fromarray(out)
        tensor = self.prefix.plan.tensor_of(out)
        if self.prefix.takes == "tv_tensor":  # torchvision's own is here: it made the transforms
            return importlib.import_module("torchvision.tv_tensors").Image(tensor)
        return tensor

    def _transformed(self, picture: Any) -> Any:
        for step in self.prefix.rest:
            picture = step(picture)
        return picture
