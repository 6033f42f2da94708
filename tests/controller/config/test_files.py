import pytest

from controller.config import ConfigErrors, from_text, load_experiment, load_station
from controller.config.files import LARGEST_BYTES, locate

TEXT = '''# a comment
[sample]
name = "x"
notes = """
name = "not a key"
[not.a.table]
"""
"quoted key" = 1
dotted.inside = 2

[[step]]
do = "scan"
raster = { dwell = "1 ms",
}
[[step]]
do = "parallel"
[[step.step]]
do = "charge"
[[step.step]]
do = "scan"
[step.step.until]
passes = 3
[[step]]
do = "ocv"  # [not.a.table]
'''


def test_where_things_stand():
    assert locate(TEXT) == {
        ("sample",): 2,
        ("sample", "name"): 3,
        ("sample", "notes"): 4,
        ("sample", "quoted key"): 8,
        ("sample", "dotted", "inside"): 9,
        ("step", 0): 11,
        ("step", 0, "do"): 12,
        ("step", 0, "raster"): 13,
        ("step", 1): 15,
        ("step", 1, "do"): 16,
        ("step", 1, "step", 0): 17,
        ("step", 1, "step", 0, "do"): 18,
        ("step", 1, "step", 1): 19,
        ("step", 1, "step", 1, "do"): 20,
        ("step", 1, "step", 1, "until"): 21,
        ("step", 1, "step", 1, "until", "passes"): 22,
        ("step", 2): 23,
        ("step", 2, "do"): 24,
    }


def test_the_nearest_table_stands_for_what_has_no_line():
    source = from_text(TEXT.replace('"1 ms",\n}', '"1 ms" }'), "x.toml")
    assert source.line_of(("step", 0, "raster", "dwell")) == 13
    assert source.line_of(("step", 1, "timeout")) == 14
    assert source.line_of(("nowhere",)) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('a = "x\n', 'x.toml: line 1, column 7: not valid TOML: illegal character \'\\n\': a = "x'),
        ("[a]\nb = 1\nb = 2\n", "x.toml: line 3, column 6: not valid TOML: cannot overwrite a value: b = 2"),
        ("[line.a]\n[line.a]\n",
         "x.toml: line 2, column 8: not valid TOML: cannot declare ('line', 'a') twice: [line.a]"),
        ("a = 5 K\n",
         "x.toml: line 1, column 7: not valid TOML: expected newline or end of document after a statement: "
         "a = 5 K"),
        ("a = [1", "x.toml: end of the file: not valid TOML: unclosed array: a = [1"),
    ],
)  # fmt: skip
def test_syntax_errors_name_line_column_and_text(text, message):
    with pytest.raises(ConfigErrors) as caught:
        from_text(text, "x.toml")
    assert [problem.message for problem in caught.value.problems] == [message]


def test_files_that_cannot_be_read(tmp_path):
    for load in (load_station, load_experiment):
        with pytest.raises(ConfigErrors, match=r"nothing\.toml: cannot be read: No such file or directory"):
            load(tmp_path / "nothing.toml")
        with pytest.raises(ConfigErrors, match="cannot be read: Is a directory"):
            load(tmp_path)
    latin = tmp_path / "latin.toml"
    latin.write_bytes('name = "Möller"'.encode("latin-1"))
    with pytest.raises(ConfigErrors, match=r"latin\.toml: is not UTF-8 text \(byte 9\)"):
        load_station(latin)
    large = tmp_path / "large.toml"
    large.write_bytes(b"#" * (LARGEST_BYTES + 1))
    with pytest.raises(ConfigErrors, match="is too large for a settings file"):
        load_station(large)


def test_an_empty_file_lists_what_a_station_needs():
    with pytest.raises(ConfigErrors) as caught:
        load_empty()
    keys = {problem.key for problem in caught.value.problems}
    assert keys == {"station", "line", "device", "roles", "limits"}


def load_empty():
    from controller.config import station_from

    return station_from(from_text("", "station.toml"))


def test_a_byte_order_mark_is_no_error(tmp_path):
    file = tmp_path / "bom.toml"
    file.write_bytes(b"\xef\xbb\xbfa = 1\n")
    with pytest.raises(ConfigErrors, match="a = 1 is not a known key"):
        load_station(file)
