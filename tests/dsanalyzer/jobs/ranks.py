"""A script for torchrun: ranks.py FOLDER [--slow RANK MS] [--leaves RANK STEPS]."""

import argparse
import glob
import time

import numpy as np
import torch
import torch.distributed as dist
from PIL import Image
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, DistributedSampler


class Pictures(Dataset):
    def __init__(self, root, slow_s):
        self.paths = sorted(glob.glob(f"{root}/*/*.jpg"))
        self.slow_s = slow_s

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        time.sleep(self.slow_s)
        image = Image.open(self.paths[index]).convert("RGB").resize((64, 64))
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255, index % 2


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("root")
    parser.add_argument("--slow", nargs=2, type=float, default=(-1, 0))
    parser.add_argument("--leaves", nargs=2, type=int, default=(-1, 0))
    args = parser.parse_args()
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    data = Pictures(args.root, args.slow[1] / 1e3 if rank == args.slow[0] else 0)
    sampler = DistributedSampler(data)
    loader = DataLoader(data, batch_size=8, sampler=sampler, num_workers=1)
    model = DistributedDataParallel(
        nn.Sequential(nn.Conv2d(3, 8, 3, stride=4), nn.Flatten(), nn.Linear(2048, 2))
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    steps = 0
    for epoch in range(1000):
        sampler.set_epoch(epoch)
        for images, labels in loader:
            loss = nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 1
            if rank == args.leaves[0] and steps == args.leaves[1]:
                return


if __name__ == "__main__":
    main()
