"""A plan that became shorter reaches the second run: by the files that say what was chosen."""

import json

import pytest

from dsanalyzer import ranks


@pytest.mark.parametrize("count", [1, 2])
def test_what_was_chosen_is_cut_to_the_plan(tmp_path, count):
    for rank in range(count):
        paths = [f"{rank}-{number}" for number in range(6)]
        part = {
            "indices": list(range(6)),
            "files": [[path, "common"] for path in paths],
            "sizes": dict.fromkeys([*paths, "common"], 10),
            "why": None,
        }
        name = "subset.json" if count == 1 else f"subset-{rank}.json"
        (tmp_path / name).write_text(json.dumps(part))

    ranks.shorten_subsets(count, tmp_path, 4 * count)

    whole = json.loads((tmp_path / "subset.json").read_text())
    assert whole["indices"] == [0, 1, 2, 3] * count
    assert set(whole["sizes"]) == {"common"} | {f"{r}-{n}" for r in range(count) for n in range(4)}
    if count == 2:  # what the ranks of the second run read
        own = json.loads((tmp_path / "subset-1.json").read_text())
        assert own["files"] == [[f"1-{number}", "common"] for number in range(4)]
