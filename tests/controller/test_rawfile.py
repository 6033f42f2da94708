import json

import pytest

from controller.rawfile import RawIndex, RawWriter, read_index, read_words

FIRST = bytes.fromhex("02a51234 80010000")
SECOND = bytes.fromhex("c0004001 02a51235 02a51236")


def test_ranges_of_passes(tmp_path):
    writer = RawWriter(tmp_path, "pixe")
    writer.begin_pass(0, 1)
    writer.append(FIRST)
    one = writer.end_pass()
    writer.begin_pass(0, 2)
    writer.append(SECOND[:4])
    writer.append(SECOND[4:])
    two = writer.end_pass()
    writer.close()
    assert (one["path"], one["offset"], one["words"]) == ("pixe.words", 0, 2)
    assert (two["offset"], two["words"]) == (8, 3)
    assert read_words(tmp_path, one, verify=True) == FIRST
    assert read_words(tmp_path, two, verify=True) == SECOND


def test_the_hash_is_that_of_the_range(tmp_path):
    writer = RawWriter(tmp_path, "pige")
    writer.begin_pass(0, 1)
    writer.append(b"abcd")
    # FIPS 180 style check value of "abcd", from coreutils sha256sum
    expected = "88d4266fd4e6338d13b845fcf289579d209c897823b9217da3e161936f031589"
    assert writer.end_pass()["sha256"] == expected
    writer.close()


def test_an_existing_file_is_continued_on_a_word_boundary(tmp_path):
    (tmp_path / "pixe.words").write_bytes(FIRST + b"\x02\xa5")  # a crash cut the third word
    writer = RawWriter(tmp_path, "pixe")
    writer.begin_pass(0, 7)
    writer.append(SECOND)
    entry = writer.end_pass()
    writer.close()
    assert entry["offset"] == 12
    assert read_words(tmp_path, entry, verify=True) == SECOND


def test_half_words_are_refused(tmp_path):
    writer = RawWriter(tmp_path, "pixe")
    with pytest.raises(ValueError, match="not whole"):
        writer.append(b"\x00\x01\x02")
    writer.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"words": 9}, "expected 36"),
        ({"sha256": "00"}, "checksum"),
        ({"path": "../pixe.words"}, "plain name"),
    ],
)
def test_a_wrong_range_is_refused(tmp_path, change, message):
    writer = RawWriter(tmp_path, "pixe")
    writer.begin_pass(0, 1)
    writer.append(FIRST)
    entry = {**writer.end_pass(), **change}
    writer.close()
    with pytest.raises(ValueError, match=message):
        read_words(tmp_path, entry, verify=True)


def test_index_keeps_order_and_bytes(tmp_path):
    index = RawIndex(tmp_path)
    index.write({"k": "run", "run": "r1", "settings": {"a": 1.5}})
    index.write({"k": "events", "words": b"x"})  # events are in the words file
    index.write({"k": "pass_end", "n": 1, "pixel_charge": b"\x00\x01\xff"})
    index.close()
    messages = list(read_index(tmp_path))
    assert [m["k"] for m in messages] == ["run", "pass_end"]
    assert messages[1]["pixel_charge"] == b"\x00\x01\xff"
    first = (tmp_path / "index.jsonl").read_text().splitlines()[0]
    assert json.loads(first) == {"k": "run", "run": "r1", "settings": {"a": 1.5}}


def test_a_line_cut_off_by_a_crash_is_skipped(tmp_path):
    (tmp_path / "index.jsonl").write_bytes(b'{"k":"run","run":"r1"}\n{"k":"pass_e')
    index = RawIndex(tmp_path)
    index.write({"k": "scan_end", "scan": 0})
    index.close()
    assert [m["k"] for m in read_index(tmp_path)] == ["run", "scan_end"]


@pytest.mark.parametrize(
    "line", [b"[" * 100_000, b'{"base64":1}', b'{"a":{"base64":5}}', b'{"a":{"base64":"x"}}', b'"text"'],
    ids=["nested", "base64-number", "inner-number", "base64-cut", "no-object"],
)  # fmt: skip
def test_a_damaged_line_is_skipped(tmp_path, line):
    (tmp_path / "index.jsonl").write_bytes(b'{"k":"run"}\n' + line + b'\n{"k":"scan_end"}\n')
    assert [m["k"] for m in read_index(tmp_path)] == ["run", "scan_end"]


@pytest.mark.parametrize(
    "entry",
    [
        {}, 3, {"path": "pixe.words"}, {"path": 1, "offset": 0, "words": 1},
        {"path": "pixe.words", "offset": "x", "words": None},
        {"path": "pixe.words", "offset": float("inf"), "words": 1},
        {"path": "pixe.words", "offset": -1, "words": 1},
        {"path": "pixe.words", "offset": 0, "words": 10**12},
    ],
)  # fmt: skip
def test_what_is_no_range_is_refused(tmp_path, entry):
    (tmp_path / "pixe.words").write_bytes(FIRST)
    with pytest.raises(ValueError, match=r"pixe\.words|plain name"):
        read_words(tmp_path, entry)


def test_what_is_not_json_is_refused(tmp_path):
    index = RawIndex(tmp_path)
    with pytest.raises(TypeError, match="object"):
        index.write({"k": "run", "x": object()})
    with pytest.raises(ValueError, match=r"[Jj][Ss][Oo][Nn]"):
        index.write({"k": "run", "x": float("nan")})
    index.close()
