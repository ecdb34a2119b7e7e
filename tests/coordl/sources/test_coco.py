"""CocoDetection: boxes follow the pixels, by the pixels themselves and by torchvision."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import coordl
from coordl import CocoDetection, ItemError, collate_detections
from coordl import transforms as T

SIZES = [(120, 90), (90, 120), (100, 100), (64, 48), (150, 80)]
COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)]
CATEGORIES = {3: "disc", 7: "square", 90: "bar"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Composites of rectangles, one colour each, on black: their boxes are exact."""
    draw = np.random.default_rng(5)
    images, annotations = [], []
    for number, (width, height) in enumerate(SIZES):
        id = 100 - number  # not in the file's order
        levels = np.zeros((height, width, 3), np.uint8)
        for place, colour in enumerate(COLOURS[: number % 5]):
            # Each in a column of its own, so that none hides another.
            left = place * (width // 4) + int(draw.integers(0, 6))
            top = int(draw.integers(0, height // 2))
            w, h = int(draw.integers(4, width // 4 - 6)), int(draw.integers(4, height // 2))
            levels[top : top + h, left : left + w] = colour
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": id,
                    "category_id": [3, 7, 90][place % 3],
                    "bbox": [left, top, w, h],
                    "area": w * h / 2,
                    "iscrowd": int(place == 1),
                }
            )
        name = f"part/{id}.png"
        (tmp_path / "part").mkdir(exist_ok=True)
        Image.fromarray(levels).save(tmp_path / name)
        images.append({"id": id, "file_name": name, "width": width, "height": height})
    draw.shuffle(annotations)
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": id, "name": name} for id, name in CATEGORIES.items()],
    }
    (tmp_path / "instances.json").write_text(json.dumps(content))
    return tmp_path


def opened(root: Path, *args: Any, **options: Any) -> CocoDetection:
    return CocoDetection(root, root / "instances.json", *args, **options)


def boxes_in(picture: Image.Image) -> dict[tuple[int, ...], list[int]]:
    """The slow reference: of each colour the smallest box around its pixels."""
    levels = np.asarray(picture)
    found = {}
    for colour in COLOURS:
        rows, columns = np.nonzero((levels == colour).all(axis=2))
        if rows.size:
            box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            found[colour] = [int(edge) for edge in box]
    return found


def by_colour(picture: Image.Image, target: dict[str, Any]) -> dict[tuple[int, ...], list[float]]:
    """Boxes by the colour at their middle."""
    levels = np.asarray(picture)
    found = {}
    for left, top, right, bottom in target["boxes"].tolist():
        middle = levels[int((top + bottom) / 2), int((left + right) / 2)]
        found[tuple(middle.tolist())] = [left, top, right, bottom]
    assert len(found) == len(target["boxes"])
    return found


def test_samples_are_pictures_and_their_boxes_in_order_of_id(root: Path) -> None:
    data = opened(root)
    assert [id for _, id in data.samples] == sorted(100 - n for n in range(len(SIZES)))
    assert data.categories == CATEGORIES and len(data) == 5
    for index in range(5):
        picture, target = data[index]
        assert picture.mode == "RGB" and int(target["image_id"]) == data.samples[index][1]
        assert by_colour(picture, target) == boxes_in(picture)
        assert target["boxes"].dtype == torch.float32 and target["labels"].dtype == torch.int64
        sides = target["boxes"][:, 2:] - target["boxes"][:, :2]
        assert torch.equal(target["area"], sides.prod(1) / 2)
    assert sum(len(data[i][1]["boxes"]) for i in range(5)) == 10
    assert repr(data) == f"coordl.CocoDetection({str(root)!r}: 5 pictures, 10 boxes)"
    assert data[-1][1]["image_id"] == 100
    with pytest.raises(IndexError):
        data[5]


def test_pictures_without_boxes_are_samples_too(root: Path) -> None:
    _, target = opened(root, T.CenterCrop(20))[4]
    assert target["boxes"].shape == (0, 4) and target["labels"].shape == (0,)
    assert target["area"].shape == target["iscrowd"].shape == (0,)


EXACT = [
    T.CenterCrop((50, 40)),
    T.CenterCrop((95, 130)),  # pads some
    T.CenterCrop((140, 161)),  # pads all, oddly
    T.RandomCrop(44),
    T.RandomCrop((80, 100), padding=(5, 9, 17, 3), pad_if_needed=True),
    T.RandomCrop((110, 160), padding=3, pad_if_needed=True),
    T.RandomHorizontalFlip(1.0),
    T.RandomVerticalFlip(0.5),
    T.Compose([T.RandomHorizontalFlip(), T.RandomCrop(40), T.RandomVerticalFlip()]),
    T.Compose([T.RandomCrop(40), T.CenterCrop(60)]),
    T.Compose([T.CenterCrop((40, 60)), T.Resize((120, 120), "nearest"), T.RandomCrop(100)]),
]


@pytest.mark.parametrize("transform", EXACT, ids=str)
@pytest.mark.parametrize("seed", range(5))
def test_boxes_go_where_the_pixels_go(root: Path, transform: Any, seed: int) -> None:
    data = opened(root, transform)
    for index in range(len(data)):
        torch.manual_seed(seed)
        picture, target = data[index]
        assert by_colour(picture, target) == boxes_in(picture)
        torch.manual_seed(seed)
        plain = transform(Image.open(data.samples[index][0]).convert("RGB"))
        assert np.array_equal(np.asarray(picture), np.asarray(plain))


@pytest.mark.parametrize("seed", range(5))
def test_boxes_follow_resized_crops_to_a_pixel(root: Path, seed: int) -> None:
    transform = T.RandomResizedCrop((70, 90), scale=(0.3, 1.0), interpolation="nearest")
    data = opened(root, transform)
    for index in range(len(data)):
        torch.manual_seed(seed)
        picture, target = data[index]
        expected = boxes_in(picture)
        for colour, box in by_colour(picture, target).items():
            assert np.abs(np.array(box) - expected[colour]).max() <= 1


def recipes(library: Any) -> list[Any]:
    return [
        [library.RandomResizedCrop((60, 80), scale=(0.2, 1.0))],
        [library.Resize((33, 71))],
        [library.Resize(77), library.CenterCrop(60)],
        [library.CenterCrop((96, 130))],  # odd paddings: its boxes are a pixel beside its pictures
        [library.Resize(100), library.RandomCrop((40, 50))],
        [library.RandomHorizontalFlip(0.5), library.RandomVerticalFlip(0.5)],
        [
            library.RandomResizedCrop(50, scale=(0.2, 1.0)),
            library.RandomHorizontalFlip(0.5),
            library.Resize(90),
            library.RandomCrop(70),
        ],
    ]


@pytest.mark.parametrize("number", range(7))
def test_boxes_are_those_of_torchvision(root: Path, torchvision: ModuleType, number: int) -> None:
    v2 = torchvision.transforms.v2
    tv_tensors = __import__("torchvision.tv_tensors").tv_tensors
    theirs = v2.Compose(
        [*recipes(v2)[number], v2.ClampBoundingBoxes(), v2.SanitizeBoundingBoxes(min_size=1)]
    )
    ours, plain = opened(root, T.Compose(recipes(T)[number])), opened(root)
    for index in range(len(plain)):
        for seed in range(8):
            picture, target = plain[index]
            boxes = tv_tensors.BoundingBoxes(
                target["boxes"], format="XYXY", canvas_size=(picture.height, picture.width)
            )
            torch.manual_seed(seed)
            other, wanted = theirs(picture, {"boxes": boxes, "labels": target["labels"]})
            torch.manual_seed(seed)
            picture, target = ours[index]
            assert picture.size == other.size
            assert torch.equal(target["labels"], wanted["labels"])
            assert torch.allclose(target["boxes"], torch.Tensor(wanted["boxes"]), atol=1e-3)


# -- what is dropped -----------------------------------------------------------------------------


def one_box(tmp_path: Path, box: list[float], **more: Any) -> Path:
    Image.new("RGB", (100, 100)).save(tmp_path / "x.png")
    content = {
        "images": [{"id": 1, "file_name": "x.png"}],
        "annotations": [{"id": 5, "image_id": 1, "category_id": 3, "bbox": box, **more}],
        "categories": [{"id": 3, "name": "disc"}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(content))
    return tmp_path


@pytest.mark.parametrize(
    ("box", "options", "kept"),
    [
        ([20, 40, 10, 10], {}, True),
        ([0, 40, 20, 10], {}, False),  # beside the crop
        ([0, 40, 25.5, 10], {}, False),  # half a pixel of it inside
        ([0, 40, 26, 10], {}, True),
        ([0, 40, 26, 10], {"min_size": 2}, False),
        ([0, 40, 30, 10], {"min_visible": 0.2}, False),
        ([0, 40, 50, 10], {"min_visible": 0.5}, True),
        ([30, 30, 0, 5], {"min_size": 0}, False),  # no area at all
    ],
)
def test_boxes_of_which_too_little_is_left_are_dropped(
    tmp_path: Path, box: list[float], options: dict[str, float], kept: bool
) -> None:
    data = opened(one_box(tmp_path, box), T.CenterCrop(50), **options)
    assert [len(value) for key, value in data[0][1].items() if key != "image_id"] == [kept] * 4


def test_areas_follow_zoom_and_share(tmp_path: Path) -> None:
    """Half of the box is cut off, then each side is doubled."""
    recipe = T.Compose([T.CenterCrop(50), T.Resize(100)])
    _, target = opened(one_box(tmp_path, [15, 40, 20, 10], area=80.0, iscrowd=1), recipe)[0]
    assert target["boxes"].tolist() == [[0, 30, 20, 50]]
    assert target["area"].tolist() == [160] and target["iscrowd"].tolist() == [1]


def test_what_a_crop_cut_off_does_not_come_back_by_padding(tmp_path: Path) -> None:
    recipe = T.Compose([T.CenterCrop(50), T.RandomCrop(90, padding=20)])
    _, target = opened(one_box(tmp_path, [15, 40, 20, 10]), recipe)[0]
    assert target["boxes"].tolist() == [[20, 35, 30, 45]]


def test_without_a_transform_boxes_stay_as_annotated(tmp_path: Path) -> None:
    _, target = opened(one_box(tmp_path, [-3, 50.5, 200, 0]))[0]
    assert target["boxes"].tolist() == [[-3, 50.5, 197, 50.5]]


# -- in loaders ----------------------------------------------------------------------------------

RECIPE = T.Compose([T.RandomResizedCrop(48), T.RandomHorizontalFlip(), T.ToTensor()])


def assert_same(ours: list[Any], theirs: list[Any]) -> None:
    assert len(ours) == len(theirs) > 0
    for (a, x), (b, y) in zip(ours, theirs, strict=True):
        assert torch.equal(a, b)
        for one, other in zip(x, y, strict=True):
            assert one.keys() == other.keys()
            assert all(torch.equal(one[key], other[key]) for key in one)


def test_targets_of_different_length_are_collated_as_a_list(root: Path) -> None:
    data = opened(root, RECIPE)
    images, targets = next(
        iter(torch.utils.data.DataLoader(data, 5, collate_fn=collate_detections))
    )
    assert images.shape == (5, 3, 48, 48)
    assert [int(target["image_id"]) for target in targets] == [96, 97, 98, 99, 100]
    images, _ = collate_detections([opened(root, T.ToTensor())[i] for i in range(2)])
    assert isinstance(images, list) and images[0].shape != images[1].shape


@pytest.mark.parametrize("cache", [None, "100%"])
def test_crops_are_keyed_and_pictures_come_from_the_cache(root: Path, cache: str | None) -> None:
    def run(workers: int, cache: str | None = None) -> tuple[list[Any], coordl.DataLoader]:
        loader = coordl.DataLoader(
            opened(root, RECIPE), 2, num_workers=workers, seed=3, cache=cache,
            collate_fn=collate_detections,
        )  # fmt: skip
        return [batch for _ in range(2) for batch in loader], loader

    plain, _ = run(0)
    assert_same(run(1, cache)[0], plain)
    ours, loader = run(0, cache)
    assert_same(ours, plain)
    assert "boxes are moved along with the pixels in Python" in loader.plan()
    if cache is not None:
        second = loader.stats()["epochs"][1]
        assert (second["hits"], second["misses"]) == (5, 0)


def test_it_travels_to_other_processes(root: Path) -> None:
    data = opened(root)
    copied = pickle.loads(pickle.dumps(data))
    assert torch.equal(copied[1][1]["boxes"], data[1][1]["boxes"])


def test_a_function_of_ones_own_gets_picture_and_target(root: Path) -> None:
    def own(picture: Any, target: dict[str, Any]) -> tuple[Any, Any]:
        return picture.size, target["labels"] + 1

    data = opened(root, transforms=own, target_transform=lambda labels: labels.tolist())
    size, labels = data[0]
    assert size == SIZES[4] and sorted(labels) == [4, 4, 8, 91]


# -- what is wrong -------------------------------------------------------------------------------


def test_transforms_nobody_knows_are_refused(root: Path, torchvision: ModuleType) -> None:
    own: Callable[[Any], Any] = lambda image: image  # noqa: E731

    class Mine(T.RandomCrop):
        pass

    for step in (own, torchvision.transforms.RandomCrop(8), Mine(8)):
        with pytest.raises(TypeError, match=r"none of coordl\.transforms.*transforms="):
            opened(root, T.Compose([T.Compose([step])]))


def test_arguments_that_contradict_each_other_are_refused(root: Path) -> None:
    with pytest.raises(ValueError, match="not both"):
        opened(root, RECIPE, transforms=lambda a, b: (a, b))
    with pytest.raises(ValueError, match="min_visible=2"):
        opened(root, RECIPE, min_visible=2)


@pytest.mark.parametrize("cache", [None, "100%"])
def test_a_bad_picture_is_named_with_index_and_path(root: Path, cache: str | None) -> None:
    data = opened(root, RECIPE)
    Path(data.samples[3][0]).write_bytes(b"no picture")
    loader = coordl.DataLoader(data, 1, cache=cache, collate_fn=collate_detections)
    with pytest.raises(ItemError, match=r"sample 3, .*99\.png: cannot identify") as caught:
        list(loader)
    assert caught.value.index == 3


def broken(change: Callable[[dict[str, Any]], None]) -> str:
    content = {
        "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}],
        "annotations": [{"id": 5, "image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4]}],
        "categories": [{"id": 3, "name": "disc"}],
    }
    change(content)
    return json.dumps(content)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "no list of images"),
        (broken(lambda c: c.pop("annotations")), "no list of annotations"),
        (
            broken(lambda c: c["images"].append({"id": 2, "file_name": "c"})),
            "two images have",
        ),
        (broken(lambda c: c["images"].append({"id": 4})), "entry of images has no file_name"),
        (broken(lambda c: c["annotations"][0].update(image_id=9)), "annotation 5 is of image 9"),
        (
            broken(lambda c: c["annotations"][0].update(category_id=9)),
            "has the category 9",
        ),
        (broken(lambda c: c["annotations"][0].pop("bbox")), r"annotation 5 has no box \[x, y"),
        (
            broken(lambda c: c["annotations"][0].update(bbox=[1, 2, -3, 4])),
            "5 .*negative",
        ),
        (
            broken(lambda c: c["annotations"][0].update(image_id="1")),
            "no whole number as",
        ),
    ],
)
def test_a_bad_file_is_named_with_its_entry(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "instances.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"instances\.json:? .*{message}"):
        CocoDetection(tmp_path, path)
