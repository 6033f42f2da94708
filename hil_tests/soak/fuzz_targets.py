"""What is fuzzed: every reader of files, codec and driver, each with the errors that it may raise.

A target takes any bytes. Anything else than a result or one of its documented errors is a finding: another
exception, a warning of the arithmetic, more than ``MAX_GROWTH_MB`` of memory, more than ``MAX_S``. The same
targets run in ``make test`` on mutations of their seeds (tests/test_hostile_input.py), and guided by coverage
in ``python -m hil_tests.soak --only fuzz-NAME``.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import itertools
import resource
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hil_tests.soak import fuzz_codecs, fuzz_devices, fuzz_frames, fuzz_lines, fuzz_seeds
from hil_tests.soak.fuzz_codecs import scratch

MAX_S = 12.0  # a file that hangs the HDF5 library costs 8
MAX_GROWTH_MB = 300
MAX_BLOCKS = 50
STREAMS = ("blocks", "frames", "spectra")
READERS = "drivers.files."

Seeds = Callable[[], list[bytes]]
One = Callable[[bytes], None]


@dataclass(frozen=True)
class Target:
    """One thing to be fuzzed.

    Attributes:
        make: imports what is tested (under instrumentation) and returns the function that takes bytes.
        seeds: valid input.
        allowed: names of the documented errors, "module:name".
        words: of the format, for the dictionary.
        max_bytes: of an input.
        needs: libraries of an extra.
        covers: modules of drivers/files.
        examples: mutations that `make test` tries.
    """

    make: Callable[[], One]
    seeds: Seeds
    allowed: tuple[str, ...]
    words: tuple[bytes, ...] = ()
    max_bytes: int = 8192
    needs: tuple[str, ...] = ()
    covers: tuple[str, ...] = ()
    examples: int = 120


class TooMuch(Exception):
    """An input took too long or too much memory."""


def one(name: str) -> One:
    """Return the function of a target that raises only what is a finding."""
    target = TARGETS[name]
    run = target.make()
    allowed = tuple(_named(error) for error in target.allowed)

    def checked(data: bytes) -> None:
        before_mb, began_s = _peak_mb(), time.monotonic()
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            with contextlib.suppress(*allowed):
                run(data)
        if time.monotonic() - began_s > MAX_S:
            raise TooMuch(f"{time.monotonic() - began_s:.1f} s for {len(data)} bytes")
        if _peak_mb() - before_mb > MAX_GROWTH_MB:
            raise TooMuch(f"{_peak_mb() - before_mb:.0f} MB for {len(data)} bytes")

    return checked


def missing(name: str) -> str:
    """Return which library a target needs that is not installed, "" when nothing is missing."""
    return next((lib for lib in TARGETS[name].needs if importlib.util.find_spec(lib) is None), "")


def _named(error: str) -> type[BaseException]:
    module, _, name = error.partition(":")
    found: type[BaseException] = getattr(importlib.import_module(module), name)
    return found


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _reader(
    module: str, seeds: Seeds, *words: bytes, read: str = "read", ending: str = ".bin",
    needs: tuple[str, ...] = (), covers: tuple[str, ...] = (), max_bytes: int = 8192,
    beside: bytes | None = None,
) -> Target:  # fmt: skip
    """Return the target of a reader: read, then take everything it hands over in pieces.

    ``beside`` is written into a second file with the ending .ibd.
    """

    def make() -> One:
        function = getattr(importlib.import_module(READERS + module), read)
        path = scratch() / f"{module}-{read}{ending}"
        if beside is not None:
            path.with_suffix(".ibd").write_bytes(beside)

        def run(data: bytes) -> None:
            path.write_bytes(data)
            drain(function(path))

        return run

    errors = (READERS + "errors:FileError",)
    return Target(make, seeds, errors, words, max_bytes, needs, (module, *covers))


def drain(result: Any) -> None:
    """Take what a recording yields lazily, a bounded part of it."""
    for thing in result if isinstance(result, list | tuple) else [result]:
        for name in STREAMS:
            stream = getattr(thing, name, None)
            if callable(stream):
                for _ in itertools.islice(stream(), MAX_BLOCKS):
                    pass
        plane = getattr(thing, "plane", None)
        if callable(plane) and len(getattr(thing, "names", "")):
            plane(0)
        slab = getattr(thing, "slab", None)
        if callable(slab):
            slab(0, 1)
        rows = getattr(thing, "rows", None)
        if callable(rows):
            rows(0, 1)


def _codec(
    name: str, allowed: tuple[str, ...], *words: bytes, max_bytes: int = 1024, module: Any = fuzz_codecs,
    needs: tuple[str, ...] = (), examples: int = 120,
) -> Target:  # fmt: skip
    make: Callable[[], One] = getattr(module, f"make_{name}")
    return Target(make, getattr(module, f"seeds_{name}"), allowed, words, max_bytes, needs, (), examples)


def _driver(name: str, *words: bytes, module: Any = fuzz_lines) -> Target:
    """Return the target of a driver at the end of a line that does not always tell the truth."""
    return _codec(name, ("drivers.errors:DriverError",), fuzz_lines.MARK, *words, module=module, examples=40)


BAD_REPLY, REFUSED, OUT_OF_RANGE = (
    f"drivers.errors:{name}" for name in ("BadReply", "Refused", "OutOfRange")
)
NPZ = (b"counts.npy", b"'shape': (", b"'descr': '|O'", b"'fortran_order': True", b"PK\x03\x04")
TARGETS: dict[str, Target] = {
    "ortec-spe": _reader(
        "ortec_spe", lambda: fuzz_seeds.spe() + fuzz_seeds.small_files("gamma", ".spe"),
        b"$DATA:", b"$MEAS_TIM:", b"$MCA_CAL:", b"$ENER_FIT:", b"$DATE_MEA:", b"keV", b"1e400", b"nan",
    ),
    "ortec-lis": _reader("ortec_lis", fuzz_seeds.lis),
    "aps-mca": _reader(
        "aps_mca", fuzz_seeds.mca, b"ELEMENTS:", b"CHANNELS:", b"CAL_SLOPE:", b"DATA:", b"LIVE_TIME:", b"nan",
    ),
    "geopixe": _reader("geopixe", fuzz_seeds.geopixe, b"DP", b'"Xres"', b'"Chan"', b"NaN", b"1e999"),
    "npz-map": _reader("npz_map", fuzz_seeds.npz_maps, *NPZ),
    "any-file": _reader(
        "any_file",
        lambda: [*fuzz_seeds.spe(), *fuzz_seeds.lis(), *fuzz_seeds.mca(), *fuzz_seeds.geopixe()],
    ),
    "hexitec-calibration": _reader("hexitec_calibration", fuzz_seeds.hexitec_npz, *NPZ, read="read_npz"),
    "hexitec-matrix": _reader(
        "hexitec_calibration", lambda: [b"0.1 0.2\n0.3,0.4\n"], b"nan", read="read_matrix",
    ),
    "hexitec-frames": _reader("hexitec_frames", fuzz_seeds.hexitec_frames, max_bytes=32_000),
    "hexitec-hits": _reader(
        "hexitec_hits", fuzz_seeds.hexitec_hits, b"frame_data:", b"  - [[", b"npixels_x: ",
    ),
    "hit-list": _reader("hit_list", fuzz_seeds.hit_lists, b"OPHITS01", b'"hits": ', b"1e999", b"-1"),
    "hexitec-hxt": _reader("hexitec_hxt", fuzz_seeds.hexitec_hxt, b"HEXITECH"),
    "tiff-images": _reader("images", fuzz_seeds.tiff),
    "fits-images": _reader(
        "images", fuzz_seeds.fits, b"NAXIS   =", b"BITPIX  =", b"BZERO   =", b"XTENSION= 'IMAGE",
        b"PCOUNT  =", b"-64", b"1E400", b"END".ljust(80),
        ending=".fits", covers=("fits_images",), max_bytes=12_000,
    ),
    "tiff-mask": _reader("images", fuzz_seeds.masks, read="read_mask"),
    "tiff-stack": _reader("tiff_stack", fuzz_seeds.tiff, ending=".tif", needs=("tifffile",)),
    "foreign-maps": _reader("foreign_maps", lambda: [*fuzz_seeds.npz_maps(), *fuzz_seeds.geopixe()], *NPZ),
    "hdf5-map": _reader("hdf5_map", fuzz_seeds.hdf5_maps),
    "tomo-hdf5": _reader("tomo_hdf5", lambda: fuzz_seeds.hdf5_maps()[1:]),
    "imzml": _reader(
        "imzml", fuzz_seeds.imzml, b"IMS:1000102", b"IMS:1000103", b"-1", b"1e999", b"<!DOCTYPE",
        ending=".imzML", needs=("pyimzml",), beside=fuzz_seeds.IBD,
    ),
    "volumes": _reader("volumes", lambda: [fuzz_seeds.volume(), *fuzz_seeds.hdf5_maps()], *NPZ),
    "impedance-sweeps": _reader(
        "impedance_sweeps", fuzz_seeds.sweeps,
        b"ZCURVE", b"EXPLAIN", b"ZPLOT2", b"nan",
    ),
    "time-traces": _reader("time_traces", fuzz_seeds.traces, b"Time [Sec]", b"Index", b"(ms)", b";"),
    "time-traces-npz": _reader("time_traces_npz", fuzz_seeds.trace_npz, *NPZ, b"dwell_s.npy"),
    "cycler-log": _reader(
        "cycler_log", fuzz_seeds.cycler, b"Test Time / s", b"Rec#", b"DPt Time", b"nan", b"-1:00:00",
        covers=("bdf_csv", "maccor_text", "neware_csv"),
    ),
    "amptek-packets": _codec("amptek_packets", (BAD_REPLY, REFUSED, OUT_OF_RANGE), b"\xf5\xfa"),
    "amptek-listmode": _codec("amptek_listmode", (BAD_REPLY,)),
    "modbus": _codec("modbus", (BAD_REPLY, REFUSED), max_bytes=300),
    "methodscript": _codec("methodscript", (BAD_REPLY,), b"     nan", b",10", b",20B", b"Pab", b"e!"),
    "labjack-stream": _codec("labjack_stream", (BAD_REPLY, REFUSED)),
    "reduce-frames": _codec(
        "reduce_frames", ("builtins:ValueError",), b"\xa1\x61k", b"\xd8\x40", b"\xd8\x23", b"\xc1",
    ),
    "commands": _codec(
        "commands", ("controller.commands:Refusal",), *(b'"%s"' % n for n in fuzz_codecs.FIELDS), b"\\ud800",
        b"1e999", max_bytes=2048,
    ),
    "command-keys": _codec("command_keys", ("controller.command_keys:KeyFileError",), b"#", b"00" * 16),
    "link-lines": _codec(
        "link_lines", (), b'"ack"', b'"refused"', b'"beat"', b'"command"', b'"payload"', b"\\ud800", b"1e999",
    ),
    "payloads": _codec("payloads", ("controller.payloads:PayloadError",), b"\xd9\xd9\xf7", b"\xbf", b"\xba"),
    "raw-index": _codec(
        "raw_index", (), b'"pass_end"', b'"raw"', b'"base64"', b'"path"', b"../", b"1e999", b"-1",
    ),
    "keithley": _driver("keithley", b"9.91E+37", b"+4.0E+00", b"-222,\"", b"HIMP", b"IDLE", b"1\n", b"0\n"),
    "zaber": _driver("zaber", b"@01 1 %% OK IDLE -- ", b"RJ", b"BUSY", b"!01 1 ", b":?\n", b"FS", b"WR"),
    "cpx400dp": _driver("cpx400dp", b"V1 ", b"VP1 ", b"A\r\n", b"V\r\n", b"100\r\n", b"-1"),
    "modbus-devices": _driver("modbus_devices", b"\x02\x80\x00", b"\x04\0\0\x7f\xc0", module=fuzz_devices),
    "amptek-serial": _driver("amptek_serial", b"\xf5\xfa", b"\x82\x07MCAC=", module=fuzz_devices),
    "hexitec-commands": _driver("hexitec_commands", b"\x2a\x90", b"FFFF", b"0001", module=fuzz_devices),
    "hexitec-packets": _codec("hexitec_packets", (), max_bytes=1000, module=fuzz_frames),
    "zmq-images": _codec(
        "zmq_images", (), fuzz_lines.MARK, b'"htype": ', b'"array-1.0"', b'"frame": ', b'"timeStamp": ',
        b"1e999", module=fuzz_frames, needs=("zmq",),
    ),
    "camera-files": _codec(
        "camera_files", (), fuzz_lines.MARK, b".tif\n", b".fits\n", max_bytes=8192, module=fuzz_frames,
        examples=10,
    ),
    "camera-hdf5": _codec("camera_hdf5", (), max_bytes=40, module=fuzz_frames, examples=10),
    "wire-traces": _codec(
        "wire_traces", ("builtins:ValueError",), b"# operando-wire-trace 1\n", b" heater > ",
        b" - ! dropped ", b'"kind": "tcp"', b'"lines": {', b'"station_toml": "', b"1e999", b"nan",
        module=fuzz_frames, examples=60,
    ),
    "quantities": _codec(
        "quantities", ("controller.config.quantities:QuantityError",), b"degC", b"uA", b"C/5", b"1e999",
    ),
}  # fmt: skip
