import json
import struct
from array import array

import numpy as np
import pytest

from controller.reduce.products import encode
from controller.web import frames
from controller.web.view import decoded


def opened(frame):
    """Read a frame as the README says, with nothing of ours: (header, arrays by name)."""
    (size,) = struct.unpack_from("<I", frame)
    header = json.loads(frame[4 : 4 + size])
    data = 4 + size
    assert data % 8 == 0
    arrays = {}
    for name, told in header.pop("arrays").items():
        assert told["offset"] % 8 == 0
        piece = frame[data + told["offset"] : data + told["offset"] + told["bytes"]]
        arrays[name] = np.frombuffer(piece, "<" + told["dtype"]).reshape(told["shape"])
    return header, arrays


@pytest.mark.parametrize("code", ["u1", "u2", "u4", "i2", "i4", "f4", "f8"])
def test_a_map_arrives_as_reduce_wrote_it(code):
    values = np.arange(15).reshape(3, 5).astype(code)
    fields = {
        "run": "r", "scan": 2, "name": "later", "passes": [1, 2], "partial": False, "unit": "counts",
        "shape": [3, 5], "values": values.ravel(), "x_um": np.arange(5, dtype="f4"), "element": "Li",
    }  # fmt: skip
    header, arrays = opened(frames.product("map/Li", decoded(encode(fields))))
    assert np.array_equal(arrays["values"], values)
    assert arrays["x_um"].shape == (5,)
    assert (header["k"], header["stream"], header["name"], header["passes"]) == (
        "product", "map/Li", "later", [1, 2],
    )  # fmt: skip
    assert header["unit"] == "counts"


def test_what_json_cannot_hold_becomes_null():
    body = decoded(encode({"a": float("nan"), "b": [float("inf"), 1.0], "windows": [{"net": 3}]}))
    header, _ = opened(frames.product("spectrum/pige", body))
    assert (header["a"], header["b"], header["windows"]) == (None, [None, 1.0], [{"net": 3}])


def test_what_is_no_typed_array_is_refused():
    import cbor2

    for tag, value in ((85, b"123"), (70, "text"), (9999, b"1234")):
        with pytest.raises(frames.FrameError):
            frames.product("map/Li", {"values": cbor2.CBORTag(tag, value)})
    for broken in (b"", b"\x81", cbor2.dumps([1]), b"\xff" * 40):
        with pytest.raises(frames.FrameError):
            decoded(broken)


def test_a_series_has_its_columns():
    columns = (array("d", [1.5, 2.5]), array("f", [3.0, 4.0]), array("f", [2.0, 4.0]), array("f", [3.0, 5.0]))
    header, arrays = opened(frames.series("cell/voltage", "V", "refill", columns, array("f", [0.1, 0.2])))
    assert (header["k"], header["name"], header["unit"], header["why"]) == (
        "series", "cell/voltage", "V", "refill",
    )  # fmt: skip
    assert arrays["t"].tolist() == [1.5, 2.5]
    assert arrays["t"].dtype == np.float64
    assert (arrays["lo"].tolist(), arrays["hi"].tolist()) == ([2.0, 4.0], [3.0, 5.0])
    assert arrays["e"].tolist() == pytest.approx([0.1, 0.2])
