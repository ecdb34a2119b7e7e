from __future__ import annotations

import pytest
from PIL import Image

from benchmarks import formats
from coordl import _native


@pytest.mark.parametrize("name", formats.FORMATS)
def test_both_decode_to_the_same_pixels_and_are_timed_each_round(photos, name):
    if name[:4].lower().rstrip(",") not in _native.formats():
        pytest.skip("built without its library")
    images = [Image.open(photo).convert("RGB").crop((0, 0, 40, 30)) for photo in photos[:2]]
    row = formats.measure([formats.encoded(i, formats.FORMATS[name]) for i in images], 2)
    assert row["same_pixels"] is True
    assert row["coordl"]["range"][0] > 0 and row["pillow"]["range"][0] > 0


def test_a_file_the_native_pass_leaves_to_pillow_is_an_error(photos):
    item = formats.encoded(Image.open(photos[0]).crop((0, 0, 9, 9)), {"format": "BMP"})
    with pytest.raises(ValueError, match="does not take"):
        formats.by_coordl(item, formats.np.empty((9, 9, 3), formats.np.uint8))
