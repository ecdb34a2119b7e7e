"""A script that never builds a loader."""

import torch

print(torch.zeros(1))
