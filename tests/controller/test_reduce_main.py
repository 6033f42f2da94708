"""The reduce process: decoding, the session without a socket, and the process itself."""

import asyncio
import hashlib
import json
import logging
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import cbor2
import h5py
import numpy as np
import pytest

from controller import reduce_main
from controller.offline import ion_beam
from controller.rawfile import read_index
from controller.reduce import frames
from controller.reduce.decode import PassStream
from controller.reduce.messages import pass_end, scan_start
from controller.reduce.products import ProductFolder, encode, typed
from controller.reduce.session import Session
from controller.reduction import Reduction
from edge.geometry import Grid
from tests.controller.reduce_peer import Peer, words_of
from tests.edge.ion_beam_model import SETTINGS

TYPES = {64: "u1", 69: "<u2", 70: "<u4", 71: "<u8", 77: "<i2", 78: "<i4", 79: "<i8", 85: "<f4", 86: "<f8"}


def typed_array(*given):
    """cbor2 5 gives (decoder, tag), cbor2 6 (tag, immutable)."""
    tag = next(one for one in given if isinstance(one, cbor2.CBORTag))
    return np.frombuffer(tag.value, TYPES[tag.tag])


def loaded(path):
    """A product, read by what RFC 8746 says."""
    return cbor2.loads(path.read_bytes(), tag_hook=typed_array)


# --- decoding -------------------------------------------------------------------------------------


def test_frames_count_from_the_start_of_the_pass_across_the_wrap():
    time_s, channel = np.array([0.1, 0.2, 0.3]), np.array([5, 6, 7], np.uint16)
    words = words_of(time_s, channel, np.array([1, 4, 9]), 65_533)
    stream = PassStream(65_533)
    found_channel, found_frame = stream.take(0, words)
    assert list(found_channel) == [5, 6, 7]
    assert list(found_frame) == [1, 4, 9]
    assert stream.last_frame == 9
    assert stream.words == len(words) // 4


def test_events_before_the_first_frame_word_are_before_the_first_pulse():
    words = struct.pack(">3I", 0x00050001, 0xC0000000 | 8 << 14, 0x00060002)
    channel, frame = PassStream(7).take(0, words)
    assert (list(channel), list(frame)) == ([5, 6], [0, 1])


def test_an_unknown_first_frame_is_taken_from_the_stream():
    words = words_of(np.array([0.1]), np.array([5], np.uint16), np.array([3]), 500)
    assert list(PassStream(None).take(0, words)[1]) == [3]


def test_a_missing_chunk_stops_the_stream():
    stream = PassStream(0)
    words = words_of(np.array([0.1]), np.array([5], np.uint16), np.array([1]), 0)
    assert stream.take(0, words) is not None
    assert stream.take(2, words) is None
    assert stream.broken == "chunk 1 is missing"
    assert stream.take(1, words) is None


def test_words_that_step_back_stop_the_stream():
    stream = PassStream(0)
    assert stream.take(0, struct.pack(">2I", 0xC0000000 | 9 << 14, 0xC0000000 | 5 << 14)) is None
    assert "steps back" in stream.broken


# --- messages -------------------------------------------------------------------------------------

RASTER = {"nx": 2, "ny": 3, "width_um": 10.0, "height_um": 30.0, "dwell_s": 0.1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"raster": {**RASTER, "nx": 0}}, "not positive"),
        ({"raster": {**RASTER, "ny": 2.5}}, r"scan\.raster\.ny: a whole number"),
        ({"raster": {**RASTER, "dwell_s": float("nan")}}, r"scan\.raster\.dwell_s: a number"),
        ({"raster": None}, "has no raster"),
        ({"raster": 7}, "a map is needed"),
        ({"scan": -1}, r"scan\.scan: a whole number"),
    ],
)
def test_a_scan_that_makes_no_sense(change, message):
    good = {"k": "scan", "scan": 1, "name": "a", "purpose": "reference", "raster": RASTER}
    assert scan_start(good).grid.nx == 2
    with pytest.raises(ValueError, match=message):
        scan_start({**good, **change})


GRID = Grid(2, 3, 10.0, 30.0, dwell_s=0.1)
LINES = [[0, 0.0, 0.2, 4e-12], [2, 0.3, 0.5, 2e-12]]


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (np.arange(6, dtype="<f4").tobytes(), [0, 1, 2, 3, 4, 5]),
        ([[1e-12, 3e-12], []], [1e-12, 3e-12, 0, 0, 1e-12, 1e-12]),  # a line without pixels is spread
        (None, [2e-12, 2e-12, 0, 0, 1e-12, 1e-12]),
    ],
)
def test_beam_charge_in_each_shape_that_control_sends(pixels, expected):
    end = pass_end({"good": True, "lines": LINES, "pixel_charge": pixels}, {}, GRID)
    assert list(end.charge_coulomb) == pytest.approx(expected)
    assert end.lines == (0, 2)


def test_a_line_without_charge_makes_the_charge_unknown():
    end = pass_end({"good": True, "lines": [[0, 0.0, 0.2, None]]}, {}, GRID)
    assert end.charge_coulomb is None
    with pytest.raises(ValueError, match="12 bytes for 2 x 3"):
        pass_end({"good": True, "lines": LINES, "pixel_charge": bytes(12)}, {}, GRID)
    with pytest.raises(ValueError, match="line 7 of 3"):
        pass_end({"good": True, "lines": [[7, 0, 0, 1.0]]}, {}, GRID)


def test_frames_that_are_not_messages():
    with pytest.raises(ValueError, match="not CBOR"):
        frames.unpack(b"\xff\x00")
    with pytest.raises(ValueError, match="not a map with a kind"):
        frames.unpack(cbor2.dumps([1, 2]))
    with pytest.raises(ValueError, match="not a map with a kind"):
        frames.unpack(cbor2.dumps({"k": 5}))


# --- products -------------------------------------------------------------------------------------


def test_typed_arrays_are_those_of_the_standard():
    assert cbor2.dumps(typed(np.array([1.0], "<f4"))).hex() == "d85544" + "0000803f"  # tag 85, 4 bytes
    assert typed(np.array([[1, 2], [3, 4]], ">u2")).value == bytes([1, 0, 2, 0, 3, 0, 4, 0])
    with pytest.raises(ValueError, match="no typed array"):
        typed(np.array([1j]))


def test_a_product_is_complete_before_it_has_its_name(tmp_path):
    content = encode({"values": np.arange(3, dtype=np.uint32), "shape": [1, 3]})
    (message,) = ProductFolder(tmp_path / "products").write({"a": ("map/Li", content)})
    path = tmp_path / "products" / "a.cbor"
    assert message == {
        "k": "product", "stream": "map/Li", "path": str(path), "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }  # fmt: skip
    assert list(loaded(path)["values"]) == [0, 1, 2]
    assert [p.name for p in path.parent.iterdir()] == ["a.cbor"]


# --- the session ----------------------------------------------------------------------------------


@pytest.fixture
def peer_in():
    """A maker of peers that are closed afterwards."""
    made = []

    def make(folder, **model):
        made.append(Peer(folder, **model))
        return made[-1]

    yield make
    for peer in made:
        peer.close()


def play(session, messages):
    return [answer for message in messages for answer in session.handle(message)]


def of(answers, kind):
    return [answer for answer in answers if answer["k"] == kind]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A whole run, as it comes when nothing is lost: folder, answers, result."""
    folder = tmp_path_factory.mktemp("run")
    peer, session = Peer(folder), Session()
    answers = play(session, [peer.run()])
    for scan, (name, purpose) in enumerate((("as prepared", "reference"), ("after", "after"))):
        answers += play(session, [peer.scan(scan, name, purpose)])
        peer.model.lithium = 1.0 - 0.48 * scan
        for n in (1, 2, 3):
            answers += play(session, peer.a_pass(scan, n, charge=0.072 * scan))
        answers += play(session, [peer.told({"k": "scan_end", "scan": scan})])
    result = play(session, [{"k": "finish"}])[-1]["result"]
    peer.close()
    return folder, answers, result


def test_a_run_from_words_to_state_of_charge(finished):
    _, answers, result = finished
    cathode = result["layers"][-1]["quantities"]["soc_beam"]
    assert abs(cathode["value"] - 1.0) < 3 * np.hypot(cathode["sigma_stat"], cathode["sigma_sys"])
    checks = of(answers, "pass_checked")
    expected = [(scan, n, True) for scan in (0, 1) for n in (1, 2, 3)]
    assert [(c["scan"], c["n"], c["ok"]) for c in checks] == expected
    assert all(c["lost"] == {"pixe": 0, "pige": 0} for c in checks)
    assert 0.001 < checks[0]["dead_fraction"]["pige"] < 0.01
    assert result["run"] == "r1"
    quiet = ("outside 0.5 to 1", "separator: Li not detected")  # there is next to none of it
    assert not [flag for flag in result["flags"] if not any(words in flag for words in quiet)]


def test_progress_has_counts_and_quantities_by_layer(finished):
    _, answers, _ = finished
    last = of(answers, "progress")[-1]
    assert last["scan"] == 1
    assert last["counts"]["cathode"]["Co"][0] > 1_000
    assert set(last["quantities"]["cathode.soc_beam"]) == {"value", "sigma_stat", "sigma_sys", "unit"}
    assert last["interval"]["passes"] == [1, 3]
    json.dumps(last, allow_nan=False)


def test_maps_are_files_that_say_what_they_are(finished):
    folder, answers, _ = finished
    products = of(answers, "product")
    streams = {p["stream"] for p in products}
    assert {"map/Li", "map/Co", "map/P", "map/charge", "map/live_pige", "profile/Li", "profile/Co",
            "spectrum/pixe", "spectrum/pige", "soc"} <= streams  # fmt: skip
    last = [p for p in products if p["stream"] == "map/Co" and p["meta"]["scan"] == 0][-1]
    path = folder / "products" / os.path.basename(last["path"])
    assert hashlib.sha256(path.read_bytes()).hexdigest() == last["sha256"]
    found = loaded(path)
    assert (found["shape"], found["passes"], found["unit"]) == ([24, 16], [1, 2, 3], "counts")
    image = found["values"].reshape(found["shape"])
    assert image[18:].mean() > 20 * abs(image[:8].mean())  # cobalt is above
    assert found["gross"].sum() >= found["values"].sum()
    assert found["y_um"][0] == pytest.approx(-143.75)


def test_profiles_are_in_micrometres_from_the_interface(finished):
    folder, answers, _ = finished
    last = [p for p in of(answers, "product") if p["stream"] == "profile/Co"][-1]
    found = loaded(folder / "products" / os.path.basename(last["path"]))
    position, value = found["position_um"], found["values"]
    assert value[position > 20].mean() > 20 * abs(value[position < -20].mean())
    assert found["unit"] == "1/nC"
    assert len(found["sigma"]) == len(found["sigma_sys"]) == len(position)


def test_offline_is_bit_for_bit_the_same(finished):
    folder, _, result = finished
    assert ion_beam.reduce_run(folder) == result


def test_offline_with_other_settings(finished):
    folder, _, result = finished
    other = {**SETTINGS, "lines": [{**SETTINGS["lines"][0], "method": "fit"}, *SETTINGS["lines"][1:]]}
    again = ion_beam.reduce_run(folder, settings=other)["layers"][-1]["quantities"]["li_relative"]
    first = result["layers"][-1]["quantities"]["li_relative"]
    assert again["value"] != first["value"]
    assert abs(again["value"] - first["value"]) < 3 * first["sigma_stat"]


def test_offline_command(finished, capsys, tmp_path):
    folder, _, result = finished
    out = tmp_path / "again"
    assert ion_beam.main([str(folder), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "cathode (after, passes [1, 3]): change resolved" in printed
    assert "Co detected" in printed
    (entry,) = json.loads((out / "result.json").read_text())["files"]
    assert {name: entry[name] for name in result} == result
    assert [i["file"] for i in entry["inputs"]] == ["index.jsonl", "pige.words", "pixe.words"]
    assert {path.suffix for path in out.iterdir()} == {".json", ".txt", ".h5", ".png"}
    assert ion_beam.main([str(folder), str(tmp_path / "nothing")]) == 2
    assert "no index of raw events" in capsys.readouterr().err


def test_reduced_twice_every_byte_is_the_same(finished, capsys, tmp_path):
    folder, _, _ = finished
    for name in ("first", "second"):
        assert ion_beam.main([str(folder), "--out", str(tmp_path / name)]) == 0
    files = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "second").iterdir())
    for name in files:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes(), name


def test_arrays_of_a_run(finished, tmp_path, capsys):
    folder, _, _ = finished
    assert ion_beam.main([str(folder), "--out", str(tmp_path)]) == 0
    with h5py.File(tmp_path / "result.h5") as file:
        (entry,) = [file[name] for name in file]
        names = set(entry)
        kinds = ("map_Li", "map_charge", "map_dose", "map_live_pige", "map_pile_up_pixe", "map_soc",
                 "map_back_pixe", "map_fit_Co_Ka", "profile_Co", "spectrum_pige")  # fmt: skip
        assert {f"scan001_{kind}" for kind in kinds} <= names
        charge, dose = entry["scan001_map_charge/values"][:], entry["scan001_map_dose/values"][:]
        area_cm2 = (100e-4 / 16) * (300e-4 / 24)
        assert dose == pytest.approx(charge * 1e-12 / 1.602176634e-19 / area_cm2, rel=1e-5)
        back = entry["scan001_map_back_pixe"]
        assert abs(back["values"][:].sum()) < 5 * np.sqrt(np.sum(back["values_errors"][:] ** 2))
        window, fit = (entry[f"scan001_map_{name}/values"][:].sum() for name in ("Co", "fit_Co_Ka"))
        assert fit * 0.9968 == pytest.approx(window, rel=0.02)  # 2.5 FWHM hold 99.68 % of a Gaussian


# --- another analysis --------------------------------------------------------------------------------

OTHER = """
[analysis]
reference = "as prepared"
calibration = "lco-meep-2.91MeV"
interface = ["separator", "cathode"]

[[analysis.line]]
element = "Li"
detector = "pige"
method = "{method}"
{window}

[[analysis.line]]
element = "Co"
detector = "pixe"
method = "{method}"
{line}
[[analysis.line]]
element = "P"
detector = "pixe"
"""


@pytest.fixture
def recorded(finished, tmp_path):
    """The run with the experiment file that goes with it, as the host leaves it."""
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    source = Path(__file__).parent / "config" / "experiment.toml"
    shutil.copy(source, folder)
    return folder


def again(recorded, tmp_path, capsys, **changes):
    file = tmp_path / "other.toml"
    file.write_text(OTHER.format(**{"method": "window", "window": "", "line": "", **changes}))
    code = ion_beam.main([str(recorded), "--analysis", str(file), "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out)["files"][0] if out else None, err


def test_with_another_analysis_the_lines_and_methods_differ(recorded, tmp_path, capsys):
    truth = None
    for method, window in (("window", ""), ("projection", ""), ("fit", ""),
                           ("window", 'window = ["476 keV", "486 keV"]')):  # fmt: skip
        code, result, err = again(recorded, tmp_path, capsys, method=method, window=window)
        assert (code, err) == (0, "")
        line = next(one for one in result["provenance"]["lines"] if one["element"] == "Li")
        assert line["method"] == method
        assert line["window_kev"] == ([476.0, 486.0] if window else [475.0, 487.0])
        soc = result["layers"][-1]["quantities"]["soc_beam"]
        truth = soc["value"] if truth is None else truth
        assert abs(soc["value"] - 1.0) < 3 * np.hypot(soc["sigma_stat"], soc["sigma_sys"])
        assert (soc["value"] != truth) == bool(window or method != "window")


def test_with_other_regions(recorded, tmp_path, capsys):
    """A file with layers only: the anode is not asked for any more, the other layers stay as they were."""
    file = tmp_path / "regions.toml"
    text = (recorded / "experiment.toml").read_text()
    layers = text[text.index("[[sample.layer]]") : text.index("[analysis]")].split("[[sample.layer]]")
    file.write_text("[[sample.layer]]" + "[[sample.layer]]".join(layers[2:]))
    assert ion_beam.main([str(recorded), "--analysis", str(file), "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["files"]
    assert [layer["name"] for layer in result["layers"]] == ["separator", "cathode"]
    soc = result["layers"][-1]["quantities"]["soc_beam"]
    assert abs(soc["value"] - 1.0) < 3 * np.hypot(soc["sigma_stat"], soc["sigma_sys"])


def test_a_wrong_analysis_says_everything_at_once(recorded, tmp_path, capsys):
    window = 'window = ["486 keV", "476 keV"]'
    code, result, err = again(recorded, tmp_path, capsys, line='line = "Kz"\n', window=window)
    assert (code, result) == (2, None)
    for words in ("other.toml", "Kz", "must be a lower and a higher energy"):
        assert words in err
    file = tmp_path / "other.toml"
    file.write_text('[sample]\nname = "x"\n[station]\n')
    assert ion_beam.main([str(recorded), "--analysis", str(file)]) == 2
    err = capsys.readouterr().err
    assert "sample.name cannot be replaced" in err
    assert "station cannot be replaced" in err


def test_chunks_lost_on_the_way_are_read_from_the_raw_file(finished, tmp_path, caplog, peer_in):
    _, _, result = finished
    peer, session = peer_in(tmp_path), Session()
    caplog.set_level(logging.INFO, "reduce")
    answers = play(session, [peer.run()])
    for scan, (name, purpose) in enumerate((("as prepared", "reference"), ("after", "after"))):
        play(session, [peer.scan(scan, name, purpose)])
        peer.model.lithium = 1.0 - 0.48 * scan
        for n in (1, 2, 3):
            for message in peer.a_pass(scan, n, charge=0.072 * scan):
                gone = message["k"] == "events" and (
                    (n == 1 and message["i"] == 1)
                    or (n == 2 and message["det"] == "pige")
                    or (n == 3 and message["i"] == 0)
                )
                if not gone:
                    answers += session.handle(message)
        play(session, [peer.told({"k": "scan_end", "scan": scan})])
    again = play(session, [{"k": "finish"}])[-1]["result"]
    assert all(c["ok"] for c in of(answers, "pass_checked"))
    assert again == result
    assert "chunk 1 is missing" in caplog.text


def test_a_restarted_process_rebuilds_the_run_from_what_control_replays(finished):
    folder, _, result = finished
    session = Session()
    assert play(session, read_index(folder / "raw"))
    assert play(session, [{"k": "finish"}])[-1]["result"] == result


def test_what_is_told_twice_counts_once(finished):
    folder, _, result = finished
    session = Session()
    play(session, [m for m in read_index(folder / "raw") for _ in (0, 1)])
    assert play(session, [{"k": "finish"}])[-1]["result"] == result


def test_a_pass_that_ended_in_nothing_is_void(tmp_path, peer_in):
    peer, session = peer_in(tmp_path), Session()
    play(session, [peer.run(), peer.scan(0, "as prepared", "reference")])
    half = list(peer.a_pass(0, 1))[:-1]  # the host died before its end
    play(session, half)
    answers = play(session, peer.a_pass(0, 2))
    assert of(answers, "pass_checked")[0]["ok"]
    result = play(session, [{"k": "finish"}])[-1]["result"]
    assert result["scans"][0]["passes"] == [2]


def test_a_pass_that_control_refused_is_not_counted(tmp_path, peer_in):
    peer, session = peer_in(tmp_path), Session()
    play(session, [peer.run(), peer.scan(0, "as prepared", "reference")])
    (check,) = of(play(session, peer.a_pass(0, 1, good=False)), "pass_checked")
    assert (check["ok"], check["why"]) == (False, "beam")
    result = play(session, [{"k": "finish"}])[-1]["result"]
    assert result["scans"][0]["refused"] == {"1": "beam"}
    assert result["scans"][0]["passes"] == []


def test_events_beyond_the_raster_refuse_the_pass(tmp_path, peer_in):
    peer, session = peer_in(tmp_path), Session()
    play(session, [peer.run(), peer.scan(0, "as prepared", "reference")])
    (check,) = of(play(session, peer.a_pass(0, 1, frames_off=3)), "pass_checked")
    assert not check["ok"]
    assert "beyond the last pixel of the raster" in check["why"]


def test_counter_losses_are_reported(tmp_path, peer_in):
    peer, session = peer_in(tmp_path), Session()
    play(session, [peer.run(), peer.scan(0, "as prepared", "reference")])
    (check,) = of(play(session, peer.a_pass(0, 1, lost=4)), "pass_checked")
    assert check["lost"] == {"pixe": 4, "pige": 4}
    flags = play(session, [{"k": "finish"}])[-1]["result"]["flags"]
    assert "scan 0, pass 1: pige counted 4 events more than arrived" in flags


def test_a_raw_file_that_is_gone_refuses_the_pass(tmp_path, peer_in):
    peer, session = peer_in(tmp_path), Session()
    play(session, [peer.run(), peer.scan(0, "as prepared", "reference")])
    messages = [m for m in peer.a_pass(0, 1) if m["k"] != "events"]
    (tmp_path / "raw" / "pige.words").unlink()
    (check,) = of(play(session, messages), "pass_checked")
    assert not check["ok"]
    assert "pige.words" in check["why"]


def test_a_scale_that_was_wrong_is_corrected_from_the_raw_file(tmp_path, caplog, peer_in):
    peer, session = peer_in(tmp_path, dwell=0.6), Session()
    peer.model.gain = {"pige": 1.003, "pixe": 0.996}
    caplog.set_level(logging.INFO, "reduce")
    play(session, [peer.run(), peer.scan(0, "as prepared", "reference")])
    play(session, peer.a_pass(0, 1))
    assert caplog.text.count("counted again, the energy scale moved") == 2
    scale = play(session, [{"k": "finish"}])[-1]["result"]["energy_scale"]
    for name, true in peer.model.gain.items():
        assert abs(scale[name]["value"] - true) < 4 * scale[name]["sigma"]


def test_a_background_gives_the_rate_that_is_subtracted(tmp_path, peer_in):
    peer, session = peer_in(tmp_path), Session()
    peer.model.be7_hz = 0.5
    play(session, [peer.run(), peer.scan(0, "as prepared", "reference")])
    play(session, peer.a_pass(0, 1))
    before = play(session, [{"k": "finish"}])[-1]["result"]["layers"][-1]["quantities"]["li_counts"]
    stamp = {"lab_s": 1.0}
    seconds, n = 300.0, 150
    words = struct.pack(f">{n}I", *[1910 << 16 | i for i in range(n)])  # 477.5 keV, no frame word
    writer = peer.writers["pige"]
    writer.begin_pass(1, 1)
    writer.append(words)
    raw = {"pige": writer.end_pass(), "pixe": {"path": "pixe.words", "offset": 0, "words": 0}}
    counters = {d: {"slow": c, "fast": c, "accumulation_s": seconds, "real_s": seconds}
                for d, c in (("pige", n), ("pixe", 0))}  # fmt: skip
    play(session, [
        peer.scan(1, "background", "background"),
        {"k": "pass", "scan": 1, "n": 1, "frame0": {}, "stamp": stamp},
        {"k": "events", "det": "pige", "scan": 1, "n": 1, "i": 0, "words": words},
        {"k": "pass_end", "scan": 1, "n": 1, "good": True, "why": "", "lines": [], "pixel_charge": None,
         "counters": counters, "stamp": stamp, "raw": raw},
        {"k": "scan_end", "scan": 1},
    ])  # fmt: skip
    after = play(session, [{"k": "finish"}])[-1]["result"]["layers"][-1]["quantities"]["li_counts"]
    assert after["value"] == pytest.approx(before["value"], abs=4 * before["sigma_stat"])
    assert after["sigma_stat"] < before["sigma_stat"]  # more beam-off time, a better rate


def test_results_that_were_left_out_come_when_nothing_is_waiting(tmp_path, peer_in):
    """A pause after a pass that came while more was waiting: nobody may look at old results then."""
    now = [0.0]
    peer, session = peer_in(tmp_path), Session(lambda: now[0])
    play(session, [peer.run(), peer.scan(0, "as prepared", "reference")])
    busy = [answer for message in peer.a_pass(0, 1) for answer in session.handle(message, behind=True)]
    assert of(busy, "pass_checked")
    assert not of(busy, "progress")
    late = list(session.idle())
    assert [m["scan"] for m in of(late, "progress")] == [0]
    assert late[0]["quantities"]
    now[0] += 60.0
    assert not of(list(session.idle()), "progress")  # once


def test_what_is_left_out_comes_also_while_detectors_send_a_little_all_the_time():
    """Natural background in a pause: it is never silent, and nothing is behind."""

    class Still:
        def handle(self, message, *, behind):
            yield {"k": "taken"}

        def idle(self):
            yield {"k": "late"}

    here, there = socket.socketpair()
    server = threading.Thread(target=reduce_main.serve, args=(there, Still()), daemon=True)
    server.start()
    with here, there:
        assert frames.unpack(frames.receive(here))["k"] == "ready"
        ends_s, kinds = time.monotonic() + 20.0, set()
        here.sendall(frames.pack({"k": "events"}))
        while "late" not in kinds and time.monotonic() < ends_s:
            kind = frames.unpack(frames.receive(here))["k"]
            if kind == "taken":
                here.sendall(frames.pack({"k": "events"}))
            kinds.add(kind)
        here.shutdown(socket.SHUT_WR)
        server.join(10.0)
    assert "late" in kinds


def test_live_maps_of_a_running_pass(tmp_path, peer_in):
    now = [0.0]
    peer, session = peer_in(tmp_path), Session(lambda: now[0])
    play(session, [peer.run(), peer.scan(0, "as prepared", "reference")])
    messages = list(peer.a_pass(0, 1))
    play(session, messages[:3])
    assert list(session.idle()) == []
    now[0] = 6.0
    maps = list(session.idle())
    assert {m["stream"] for m in maps} == {"map/Li", "map/Co", "map/P"}
    assert maps[0]["meta"]["partial"] is True
    assert list(session.idle()) == []  # not again at once
    assert of(play(session, messages[3:]), "pass_checked")[0]["ok"]


def test_settings_that_are_refused_say_why(tmp_path):
    wrong = {**SETTINGS, "calibration": "lco-llzo-2.91MeV"}
    with pytest.raises(ValueError, match=r"LiCoO2 is 0\.85 instead of 0\.5"):
        play(Session(), [{"k": "run", "run": "r", "dir": str(tmp_path), "settings": wrong}])


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ({"k": "tea"}, "unknown kind 'tea'"),
        ({"k": "pass", "scan": 9, "n": 1}, "has not begun"),
        ({"k": "pass_end", "scan": 9, "n": 1}, "scan 9 has not begun"),
        ({"k": "pass", "scan": "x", "n": 1}, r"pass\.scan: a whole number is needed, got 'x'"),
        ({"k": "run", "run": "other", "dir": "", "settings": 5}, "a map is needed"),
    ],
)
def test_messages_that_do_not_fit(tmp_path, message, why, peer_in):
    session = Session()
    play(session, [peer_in(tmp_path).run()])
    with pytest.raises(ValueError, match=why):
        play(session, [message])


def test_before_a_run_nothing_is_taken():
    with pytest.raises(ValueError, match="no run has begun"):
        play(Session(), [{"k": "finish"}])


# --- the process ----------------------------------------------------------------------------------


class Control:
    """The listening end, blocking, with a deadline."""

    def __init__(self, folder):
        self.path = folder / "reduce.sock"
        self.server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.server.bind(str(self.path))
        self.server.listen(1)
        self.server.settimeout(30)
        command = [sys.executable, "-m", "controller.reduce_main", "--socket", str(self.path)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.connection, _ = self.server.accept()
        self.connection.settimeout(30)

    def send(self, message):
        self.connection.sendall(frames.pack(message))

    def receive(self):
        return frames.unpack(frames.receive(self.connection))

    def until(self, kind):
        answers = []
        while not answers or answers[-1]["k"] != kind:
            answers.append(self.receive())
        return answers

    def close(self):
        self.connection.close()
        self.server.close()
        try:
            _, errors = self.process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise
        return self.process.returncode, errors


def test_the_process_serves_a_run_survives_nonsense_and_ends_with_control(tmp_path, peer_in):
    control = Control(tmp_path)
    peer = peer_in(tmp_path / "run")
    assert control.receive() == {"k": "ready"}
    with open(f"/proc/{control.process.pid}/stat") as stat:
        assert int(stat.read().rsplit(")", 1)[1].split()[16]) >= 10  # nice
    os.kill(control.process.pid, signal.SIGINT)  # Ctrl-C in the terminal is not for it
    control.connection.sendall(struct.pack(">I", 3) + b"\xff\xff\xff")
    control.send({"k": "nonsense"})
    control.send({"k": "events", "det": "pixe", "scan": 0, "n": 1, "i": 0, "words": b""})
    control.send({"k": "pass_end", "scan": 0, "n": 1})
    control.send(peer.run())
    control.send(peer.scan(0, "as prepared", "reference"))
    messages = list(peer.a_pass(0, 1))
    for message in messages:
        control.send(message)
    sent = time.monotonic()
    answers = control.until("pass_checked")
    waited = time.monotonic() - sent
    assert [a.get("stream") for a in answers[:-1]] == ["map/Li", "map/Co", "map/P"]  # maps leave first
    assert answers[-1]["ok"] is True
    assert waited < 5.0  # 500 ms is asked for on an idle machine; this one is shared
    with open(f"/proc/{control.process.pid}/status") as status:
        resident_kib = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    assert resident_kib < 300_000
    control.send({"k": "finish"})
    assert control.until("result")[-1]["result"]["scans"][0]["passes"] == [1]
    code, errors = control.close()
    assert code == 0
    assert "a message was left out: not CBOR" in errors
    assert "nonsense was left out: ValueError: unknown kind 'nonsense'" in errors
    assert "Traceback" not in errors


def test_the_process_ends_when_frames_cannot_be_followed(tmp_path):
    control = Control(tmp_path)
    control.receive()
    control.connection.sendall(struct.pack(">I", 1 << 30))
    assert control.connection.recv(1) == b""
    code, errors = control.close()
    assert code == 0
    assert "beyond" in errors


def test_the_process_says_when_nobody_listens(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        reduce_main.connect(tmp_path / "nobody.sock", wait_s=0.0)


def test_with_the_real_other_end(tmp_path):
    """Control's own class on the other side: the same frames."""

    async def both():
        heard = []
        reduction = Reduction(tmp_path / "r.sock", heard.append, tmp_path / "run" / "raw")
        await reduction.start()
        command = [sys.executable, "-m", "controller.reduce_main", "--socket", str(tmp_path / "r.sock")]
        process = await asyncio.create_subprocess_exec(*command)
        await asyncio.wait_for(reduction.ready.wait(), 30)
        reduction.send({"k": "run", "run": "r1", "dir": str(tmp_path / "run"), "settings": SETTINGS})
        reduction.send({"k": "finish"})
        for _ in range(300):
            if any(m["k"] == "result" for m in heard):
                break
            await asyncio.sleep(0.05)
        await reduction.stop()
        assert await asyncio.wait_for(process.wait(), 20) == 0
        return heard

    heard = asyncio.run(both())
    assert heard[-1]["result"]["scans"] == []
