"""Training loops of other shapes than train.py's: shapes.py SHAPE FOLDER."""

import glob
import io
import sys
import urllib.request

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    SubsetRandomSampler,
    get_worker_info,
)


def load(path):
    image = Image.open(path).convert("RGB").resize((64, 64))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255, 0


class Pictures(Dataset):
    def __init__(self, paths):
        self.paths = paths

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        return load(self.paths[index])


class Masked(Pictures):
    """Pictures with a second file each, of which `samples` names the first, as torchvision's do."""

    def __init__(self, paths):
        half = len(paths) // 2
        super().__init__(paths[:half])
        self.samples = list(zip(paths[:half], paths[half:], strict=False))

    def __getitem__(self, index):
        image, mask = map(load, self.samples[index])
        return image[0] * mask[0], 0


class Generating(DataLoader):
    def __iter__(self):
        yield from super().__iter__()


class Lasting(DataLoader):
    """Keeps one iterator for its life, as timm's MultiEpochsDataLoader."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self._DataLoader__initialized = False
        self.batch_sampler = Again(self.batch_sampler)
        self._DataLoader__initialized = True
        self.iterator = super().__iter__()

    def __iter__(self):
        for _ in range(len(self)):
            yield next(self.iterator)


class Again:
    def __init__(self, sampler):
        self.sampler = sampler

    def __len__(self):
        return len(self.sampler)

    def __iter__(self):
        while True:
            yield from self.sampler


class Remote(Pictures):
    """From a server, through its own client."""

    def __getitem__(self, index):
        with urllib.request.urlopen(self.paths[index]) as answer:
            return load(io.BytesIO(answer.read()))


class Opening(Pictures):
    """Through fsspec, which is asked anew for each."""

    def __getitem__(self, index):
        import fsspec

        with fsspec.open(self.paths[index]) as file:
            return load(file)


class KeepsClient(Pictures):
    """Through a client that is made at the first sample, and of no use in a fork."""

    client = None

    def __getitem__(self, index):
        import fsspec

        if self.client is None:
            self.client = fsspec.filesystem("http")
        return load(io.BytesIO(self.client.cat_file(self.paths[index])))


class RemoteStream(IterableDataset):
    def __init__(self, paths):
        self.paths = paths

    def __iter__(self):
        info = get_worker_info()
        yield from map(Opening(self.paths).__getitem__, range(info.id, len(self.paths), 2))


class Stream(IterableDataset):
    """Each worker its share; made into minibatches here where `size` is given."""

    def __init__(self, paths, size=None):
        self.paths = paths
        self.size = size

    def __iter__(self):
        info = get_worker_info()
        own = self.paths[info.id :: info.num_workers] if info else self.paths
        if self.size is None:
            yield from map(load, own)
            return
        for start in range(0, len(own), self.size):
            images, labels = zip(*map(load, own[start : start + self.size]), strict=True)
            yield torch.stack(images), torch.tensor(labels)


class Shards(IterableDataset):
    """Samples that lie many in a file."""

    def __init__(self, path):
        self.path = path

    def __iter__(self):
        with open(self.path, "rb") as file:
            while len(record := file.read(3 * 64 * 64)) == 3 * 64 * 64:
                yield (
                    torch.frombuffer(bytearray(record), dtype=torch.uint8).view(3, 64, 64) / 1.0,
                    0,
                )


class OwnLoader:
    """No torch DataLoader; starts anew at each iteration."""

    def __init__(self, paths):
        self.paths = paths

    def __iter__(self):
        return iter(Stream(self.paths, size=16))

    def __len__(self):
        return -(-len(self.paths) // 16)


def loaders(shape, folder):
    """What is iterated in one go: one loader, or two together."""
    paths = sorted(glob.glob(f"{folder}/*/*.jpg"))
    half = len(paths) // 2
    if shape == "stream":
        return [DataLoader(Stream(paths), batch_size=16, num_workers=2)]
    if shape == "stream-of-minibatches":
        return [DataLoader(Stream(paths, size=16), batch_size=None, num_workers=2)]
    if shape == "shards":
        with open("records.bin", "wb") as file:
            file.write(bytes(3 * 64 * 64 * 400))
        return [DataLoader(Shards("records.bin"), batch_size=16)]
    if shape == "two-at-once":
        return [
            DataLoader(Pictures(part), batch_size=16, shuffle=True, num_workers=1)
            for part in (paths[:half], paths[half:])
        ]
    if shape == "stateful":
        from torchdata.stateful_dataloader import StatefulDataLoader

        return [StatefulDataLoader(Pictures(paths), batch_size=16, shuffle=True, num_workers=2)]
    if shape == "remote":
        urls = [f"{folder}/{number:03}" for number in range(160)]
        return [DataLoader(Remote(urls), batch_size=16, num_workers=2)]
    if shape.startswith("fsspec"):
        urls = [f"{folder}/class{number % 2}/{number:04}.jpg" for number in range(320)]
        if shape == "fsspec-stream":
            return [DataLoader(RemoteStream(urls), batch_size=16, num_workers=2)]
        data = KeepsClient(urls) if shape == "fsspec-client" else Opening(urls)
        return [DataLoader(data, batch_size=16, shuffle=True, num_workers=2)]
    if shape == "lists":  # as for detection

        def collate(samples):
            return tuple(zip(*samples, strict=True))

        return [DataLoader(Pictures(paths), 16, True, num_workers=2, collate_fn=collate)]
    if shape == "buckets":  # a batch sampler of no fixed size
        cut = [list(range(n, n + 16)) for n in range(0, len(paths) - 15, 16)]
        return [DataLoader(Pictures(paths), batch_sampler=cut, num_workers=2)]
    if shape == "generator":
        return [Generating(Pictures(paths), 16, True, num_workers=2)]
    if shape == "lasting":
        return [Lasting(Pictures(paths), 16, True, num_workers=2)]
    if shape == "masks":
        return [DataLoader(Masked(paths), 16, True, num_workers=2)]
    if shape == "part":
        sampler = SubsetRandomSampler(range(200))
        return [DataLoader(Pictures(paths), 16, sampler=sampler, num_workers=2)]
    if shape == "endless":  # no optimizer
        while True:
            for _ in DataLoader(Pictures(paths), 16):
                pass
    if shape == "wrapped":
        import dsanalyzer

        return [dsanalyzer.wrap(OwnLoader(paths))]
    raise SystemExit(f"unknown shape {shape}")


def main():
    shape, folder = sys.argv[1:]
    trained = loaders(shape, folder)
    val = DataLoader(Pictures(sorted(glob.glob(f"{folder}/*/*.jpg"))), batch_size=32)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4), nn.Flatten(), nn.LazyLinear(2))
    model(torch.zeros(1, 3, 64, 64))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for _ in range(3):
        for batches in zip(*trained, strict=False):
            images = torch.cat([torch.stack(tuple(images)) for images, _ in batches])
            loss = nn.functional.cross_entropy(model(images), torch.zeros(len(images)).long())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():  # a validation loop after every epoch
            for images, _ in val:
                model(images)


if __name__ == "__main__":
    main()
