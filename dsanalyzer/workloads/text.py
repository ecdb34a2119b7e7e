"""A language model over text files, byte by byte: much compute on few bytes, so no stall is due."""

from __future__ import annotations

import random
from typing import Any

from dsanalyzer.workloads.workload import Samples, Workload

LENGTH = 256  # bytes a sample
WIDTH, LAYERS, HEADS = 256, 4, 4


class Texts:
    """A map-style data set of (257,) int64 tensors: a random part of each file, zeros after it."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        import torch

        with open(self.samples[index][0], "rb") as file:
            text = file.read()
        begin = random.randint(0, max(0, len(text) - LENGTH - 1))
        part = text[begin : begin + LENGTH + 1]
        tokens = torch.zeros(LENGTH + 1, dtype=torch.int64)
        tokens[: len(part)] = torch.frombuffer(bytearray(part or b"\0"), dtype=torch.uint8)[
            : len(part)
        ]
        return tokens


def build(model: str) -> Any:
    """A transformer that predicts the next byte."""
    import torch
    from torch import nn

    class Model(nn.Module):
        """(B, 256) bytes to (B, 256, 256): what comes next."""

        def __init__(self) -> None:
            super().__init__()
            self.bytes = nn.Embedding(256, WIDTH)
            self.places = nn.Parameter(torch.zeros(LENGTH, WIDTH))
            layer = nn.TransformerEncoderLayer(
                WIDTH, HEADS, 4 * WIDTH, dropout=0.0, batch_first=True, norm_first=True
            )
            self.layers = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
            self.out = nn.Linear(WIDTH, 256)
            unseen = torch.full((LENGTH, LENGTH), -torch.inf).triu(1)
            self.register_buffer("unseen", unseen, persistent=False)

        def forward(self, tokens: Any) -> Any:
            return self.out(
                self.layers(self.bytes(tokens) + self.places, self.unseen, is_causal=True)
            )

    return Model()


def loss(net: Any, tokens: Any) -> Any:
    """Cross entropy of each byte, by those before it."""
    import torch

    found = net(tokens[:, :-1])
    return torch.nn.functional.cross_entropy(found.flatten(0, 1), tokens[:, 1:].flatten())


TEXT = Workload("texts", (".txt", ".md", ".json"), ("bytes_lm",), Texts, build, loss)
