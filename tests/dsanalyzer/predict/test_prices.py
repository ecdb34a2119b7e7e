"""Price files: what they may say, and the sentence where they say something else."""

import json

import pytest

from dsanalyzer.predict import prices

TOML = """
currency = "USD"
per = "month"
[machine]
price = 900
[cache]
per_GB = 2
max_GB = 64
[cores]
each = 20
max = 16
[storage.nvme]
price = 80
[storage.shared]
rate = "2GB/s"
per_GB = 0.1
[gpu]
each = 700
[loader.coordl]
price = 0
"""


def written(tmp_path, text, name="prices.toml"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_toml_and_json_and_yaml_say_the_same(tmp_path):
    import tomllib

    found = prices.load(written(tmp_path, TOML))
    same = json.dumps(tomllib.loads(TOML))

    assert found.period == "month" and found.machine == 900 and found.cores_max == 16
    assert found.storages[0] == prices.Storage("nvme", 3.5e9, price=80)
    assert found.storages[1] == prices.Storage("shared", 2e9, per_gb=0.1)
    assert found.loaders == {"coordl": 0}
    assert prices.load(written(tmp_path, same, "prices.json")) == found


def test_yaml_is_read_where_pyyaml_is_there_and_asked_for_where_not(tmp_path):
    import tomllib

    path = written(tmp_path, json.dumps(tomllib.loads(TOML)), "prices.yaml")  # JSON is YAML
    try:
        import yaml  # noqa: F401
    except ImportError:
        with pytest.raises(prices.PriceError, match="write the same as TOML or JSON"):
            prices.load(path)
    else:
        assert prices.load(path) == prices.load(written(tmp_path, TOML))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("per = 'year'", "per = 'year'; write one of hour, month, once"),
        ("[cash]\nper_GB = 1", "'cash' is not known; there are"),
        ("[cache]\nper_gb = 1", "cache: 'per_gb' is not known; there are max_GB, per_GB"),
        ("[cores]\neach = '2'", "cores.each is '2'; write a number"),
        ("[cores]\neach = -2", "cores.each is -2; write a number"),
        ("[storage.tape]\nprice = 1", "storage.tape: 'tape' is not a storage rate"),
        ("[storage.nvme]\nrate = '1GB/s'", "storage.nvme has no price"),
        ("[storage]\nnvme = 3", "storage holds tables by name"),
        ("cache = 3", "cache is 3; write a table with max_GB, per_GB"),
        ("per = hour", "is no TOML"),
    ],
)
def test_a_wrong_entry_is_named_with_what_to_write(tmp_path, text, said):
    with pytest.raises(prices.PriceError) as caught:
        prices.load(written(tmp_path, text))

    assert said in str(caught.value)


def test_a_missing_file_and_an_unknown_format_are_named(tmp_path):
    with pytest.raises(prices.PriceError, match=r"nowhere\.toml cannot be read: No such file"):
        prices.load(tmp_path / "nowhere.toml")
    with pytest.raises(prices.PriceError, match=r"write the prices as \.toml"):
        prices.load(written(tmp_path, "", "prices.ini"))
    with pytest.raises(prices.PriceError, match="holds no table of prices"):
        prices.load(written(tmp_path, "[1]", "prices.json"))
