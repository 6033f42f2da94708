"""One run as the reduce process sees it: messages of control in; checks, products and results out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from controller.rawfile import read_words
from controller.reduce import pictures
from controller.reduce.decode import PassStream
from controller.reduce.exposures import Exposures
from controller.reduce.images import Images
from controller.reduce.messages import number, pass_end, scan_start
from controller.reduce.products import ProductFolder, encode
from controller.reduce.spectra import spectra
from drivers.errors import BadReply
from edge.analysis import Analysis
from edge.event_kernels import OUTSIDE
from edge.ion_beam import Events, IonBeamReducer, PassDone, PassStart, Settings
from edge.report import appeared, beam_against_charge, counts_and_quantities, plain
from edge.scan_data import PassEnd, ScanData

log = logging.getLogger("reduce")

Message = dict[str, Any]
LIVE_MAP_S = 5.0  # wall time between maps of a pass that is still running
THREADS = 2  # one per detector, where a pass is read again
ANALYSIS_SHARE = 3.0  # results are computed again after this many times as long as they took


@dataclass
class OpenPass:
    """A pass between ``pass`` and ``pass_end``."""

    scan: int
    n: int
    stamp: Mapping[str, Any]
    streams: dict[str, PassStream]
    rest: list[str] = field(default_factory=list)  # detectors whose events must be read from the raw file


class Session:
    """Follows one run. Only ``handle`` and ``idle`` are called, from one thread.

    Args:
        clock: wall seconds, to space what is computed only for display.
        folder: the run's folder, where it has moved since control wrote it into the ``run`` message.
        products: where products go; None writes none and computes nothing for display.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        folder: Path | None = None,
        products: Path | Literal["run"] | None = "run",
    ) -> None:
        self._clock = clock
        self._folder = folder
        self._wanted = products
        self._reducer: IonBeamReducer | None = None
        self._run = ""
        self._raw = Path()
        self._products: ProductFolder | None = None
        self._exposures: Exposures | None = None
        self._images: Images | None = None
        self._open: OpenPass | None = None
        self._analysed_s = -1e9
        self._took_s = 0.0
        self._mapped_s = 0.0
        self._events_since_map = 0
        self._owed: int | None = None  # the scan whose results were left out while more was waiting

    @property
    def reducer(self) -> IonBeamReducer:
        """The reducer of the run. Raises ValueError before a run has begun."""
        return self._ready()

    def handle(self, message: Message, *, behind: bool = False) -> Iterator[Message]:
        """Take one message and yield the answers to it.

        Args:
            message: from control.
            behind: more messages are waiting: leave out what is only for display.

        Raises:
            ValueError: a message that does not fit; nothing of it has been taken.
        """
        kind = message["k"]
        if kind == "run":
            self._begin_run(message)
        elif kind == "scan":
            self._ready().add(scan_start(message))
        elif kind == "pass":
            self._begin_pass(message)
        elif kind == "events":
            self._take_events(message)
        elif kind == "pass_end":
            yield from self._end_pass(message, behind=behind)
        elif kind == "scan_end":
            yield from self._progress(number(message, "scan"))
            self._look_for_forgotten_lines(number(message, "scan"))
        elif self._images is not None and (kind == "image" or self._of_a_camera(message)):
            yield from self._take_images(self._images, message)
        elif kind == "exposure" and self._exposures is not None:
            yield from self._exposures.begin(message)
        elif kind == "exposure_end" and self._exposures is not None:
            yield from self._exposures.end(message)
        elif kind == "finish":
            yield {"k": "result", "result": self._result()}
        else:
            raise ValueError(f"unknown kind {kind!r}")
        for one in (self._exposures, self._images):
            if one is not None:
                yield from one.poll(behind=behind)

    def _of_a_camera(self, message: Message) -> bool:
        source, n = message.get("source"), message.get("n")
        if message["k"] == "exposure" and isinstance(source, Mapping):
            return source.get("kind") == "images"
        ends = message["k"] == "exposure_end" and self._images is not None and isinstance(n, int)
        return ends and self._images is not None and self._images.knows(int(n or 0))

    @staticmethod
    def _take_images(images: Images, message: Message) -> Iterator[Message]:
        if message["k"] == "exposure":
            images.begin(message)
        elif message["k"] == "image":
            images.add(message)
        else:
            yield from images.end(message)

    def idle(self) -> Iterator[Message]:
        """Yield what is due now that nothing is waiting: what was left out, maps of a running pass."""
        for one in (self._exposures, self._images):
            if one is not None:
                yield from one.poll(behind=False)
        now = self._clock()
        if self._owed is not None and self._due():
            yield from self._progress(self._owed)
        if self._open is None or not self._events_since_map or now - self._mapped_s < LIVE_MAP_S:
            return
        self._mapped_s, self._events_since_map = now, 0
        scan = self._ready().scans[self._open.scan]
        if scan.start.grid is not None:
            yield from self._maps(scan, partial=True)

    # --- messages ---------------------------------------------------------------------------------------

    def _begin_run(self, message: Message) -> None:
        run, folder = str(message.get("run", "")), self._folder or Path(str(message.get("dir", "")))
        if run and run == self._run:
            return  # told again after a new connection or a resume: the same run goes on
        settings = message.get("settings")
        if settings is not None and not isinstance(settings, Mapping):
            raise ValueError("run.settings: a map is needed, or null where nothing is scanned")
        self._reducer = None if settings is None else IonBeamReducer(Settings.from_dict(settings))
        self._run, self._raw, self._open = run, folder / "raw", None
        self._owed = None
        place = folder / "products" if self._wanted == "run" else self._wanted
        self._products = ProductFolder(place) if place is not None else None
        self._exposures = Exposures(run, folder, self._products, self._clock)
        told = message.get("radiography")
        settings = told if isinstance(told, Mapping) else None
        self._images = Images(run, folder, self._products, settings, self._clock)

    def _begin_pass(self, message: Message) -> None:
        reducer, scan, n = self._ready(), number(message, "scan"), number(message, "n")
        data = reducer.scans.get(scan)
        if data is not None and (n in data.passes or n in data.refused):
            self._open = None  # told again: it is counted already
            return
        reducer.open.clear()  # a pass that never ended is void
        reducer.add(PassStart(scan, n))
        frames = message.get("frame0") or {}
        streams = {name: PassStream(_frame(frames.get(name))) for name in reducer.settings.detectors}
        self._open = OpenPass(scan, n, message.get("stamp") or {}, streams)
        self._mapped_s = self._clock()

    def _take_events(self, message: Message) -> None:
        current = self._open
        if current is None or (current.scan, current.n) != (message.get("scan"), message.get("n")):
            return  # of a pass whose beginning was missed: it is read from the raw file at its end
        name, words = str(message.get("det")), message.get("words")
        stream = current.streams.get(name)
        if stream is None or not isinstance(words, bytes):
            raise ValueError(f"events: detector {name!r} or its words are not known")
        chunk = stream.take(number(message, "i"), words)
        if chunk is not None:
            self._events_since_map += chunk[0].size
            self._ready().add(Events(current.scan, current.n, name, *chunk))

    def _end_pass(self, message: Message, *, behind: bool) -> Iterator[Message]:
        reducer, scan, n = self._ready(), number(message, "scan"), number(message, "n")
        data = reducer.scans.get(scan)
        if data is None:
            raise ValueError(f"pass_end: scan {scan} has not begun")
        if n in data.passes or n in data.refused:
            return
        if self._open is None or (self._open.scan, self._open.n) != (scan, n):
            self._begin_pass({**message, "k": "pass"})
        current = self._open
        if current is None:
            return
        try:
            end = pass_end(message, current.stamp, data.start.grid)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            end = PassEnd(False, f"pass_end cannot be read: {error!r}", (), None, {})
        problems = self._complete(current, message, end)
        if problems and end.good:
            end = replace(end, good=False, why="; ".join(problems))
        shown = data.start.grid is not None and end.good and self._products is not None
        if shown:
            yield from self._maps(data, partial=False)
        reducer.add(PassDone(scan, n, end))
        self._open = None
        yield self._checked(scan, n, end)
        if shown:
            self._owed = scan
            if self._due() and not behind:
                yield from self._progress(scan)

    def _due(self) -> bool:
        return self._clock() - self._analysed_s >= ANALYSIS_SHARE * self._took_s

    def _complete(self, current: OpenPass, message: Message, end: PassEnd) -> list[str]:
        """Make sure that every event of the pass is counted, once, in windows that sit on their lines."""
        raw, frames = message.get("raw") or {}, message.get("frame0") or {}

        def one(name: str) -> list[str]:
            return self._complete_one(current, name, raw.get(name), _frame(frames.get(name)), end)

        with ThreadPoolExecutor(THREADS) as pool:  # each detector has its own words and accumulators
            return [problem for found in pool.map(one, list(current.streams)) for problem in found]

    def _complete_one(
        self,
        current: OpenPass,
        name: str,
        entry: Mapping[str, Any] | None,
        told: int | None,
        end: PassEnd,
    ) -> list[str]:
        """Complete one detector; return what is wrong with it."""
        reducer, stream = self._ready(), current.streams[name]
        if entry is None:
            return [f"{name}: no raw events"]
        problems = []
        whole = not stream.broken and stream.words == int(entry["words"])
        if not whole or (told is not None and stream.frame0 is not None and told != stream.frame0):
            why = stream.broken or f"{stream.words} of {entry['words']} words arrived"
            if stream.next_chunk:
                log.info(
                    "scan %d pass %d %s: read from the raw file (%s)", current.scan, current.n, name, why
                )
            problems += self._read_again(current, name, entry, told, moved=False)
        if end.good and reducer.is_misplaced(current.scan, current.n, name):
            log.info(
                "scan %d pass %d %s: counted again, the energy scale moved", current.scan, current.n, name
            )
            problems += self._read_again(current, name, entry, told, moved=True)
        outside = int(reducer.open[(current.scan, current.n)][name].tallies[OUTSIDE])
        if outside:
            problems.append(f"{name}: {outside} events beyond the last pixel of the raster")
        return problems

    def _read_again(
        self, current: OpenPass, name: str, entry: Mapping[str, Any], frame0: int | None, *, moved: bool
    ) -> list[str]:
        reducer = self._ready()
        reducer.recount(current.scan, current.n, name, moved=moved)
        stream = current.streams[name].fresh(frame0)
        current.streams[name] = stream
        try:
            for chunk in stream.replay(read_words(self._raw, entry)):
                reducer.add(Events(current.scan, current.n, name, *chunk, again=moved))
        except (BadReply, OSError, ValueError, KeyError) as error:
            return [f"{name}: {error}"]
        return []

    # --- answers ------------------------------------------------------------------------------------------

    def _checked(self, scan: int, n: int, end: PassEnd) -> Message:
        checks = self._ready().checks[(scan, n)]
        return {
            "k": "pass_checked",
            "scan": scan,
            "n": n,
            "ok": end.good,
            "why": end.why,
            "events": {name: check.received for name, check in checks.items()},
            "lost": {name: check.lost for name, check in checks.items()},
            "dead_fraction": {name: plain(check.dead_fraction) for name, check in checks.items()},
            "fast_z": {name: plain(check.z) for name, check in checks.items()},
        }

    def _look_for_forgotten_lines(self, scan: int) -> None:
        """Do now, while the next scan begins, what the final result would otherwise wait for."""
        data = self._ready().scans.get(scan)
        if data is not None and data.blocks and data.start.grid is not None and self._products is not None:
            self._ready().last_analysis.unexplained(data)

    def _progress(self, scan: int) -> Iterator[Message]:
        """Yield what is known of a scan now: counts, quantities, profiles, spectra, local state of charge."""
        reducer, self._owed = self._ready(), None
        data = reducer.scans.get(scan)
        if data is None:
            raise ValueError(f"scan {scan} has not begun")
        if not data.blocks or self._products is None:
            return
        began = self._clock()
        analysis = reducer.analysis()
        message: Message = {
            "k": "progress",
            "scan": scan,
            "name": data.start.name,
            "purpose": data.start.purpose,
            "counts": {},
            "quantities": {},
            "z": {},
            "appeared": {},
        }
        message["interval"] = plain(analysis.interval(data).to_dict())
        if data.start.grid is not None:
            try:
                layers = analysis.layers(data)
                counts, quantities = counts_and_quantities(layers)
                message |= {"counts": plain(counts), "quantities": plain(quantities)}
                message["appeared"] = plain(appeared(layers))
                message["z"] = {layer.name: plain(beam_against_charge(layer)) for layer in layers}
            except ValueError as error:
                message["why"] = str(error)
        yield message
        yield from self._pictures(analysis, data)
        self._analysed_s = self._clock()
        self._took_s = self._analysed_s - began

    def _pictures(self, analysis: Analysis, data: ScanData) -> Iterator[Message]:
        fields: dict[str, Mapping[str, Any]] = {
            f"spectrum/{name}": entry for name, entry in spectra(analysis, data).items()
        }
        if data.start.grid is not None:
            exposure = pictures.exposure_maps(analysis, data)
            fields |= {f"map/{name}": {**entry, **pictures.axes(data)} for name, entry in exposure.items()}
            placement = analysis.placement(data)
            if not isinstance(placement, str):
                drawn = pictures.profiles_beside_reference(analysis, data, placement)
                fields |= {f"profile/{element}": entry for element, entry in drawn.items()}
                local = pictures.local_soc(analysis, data, placement)
                if local is not None:
                    fields["soc"] = {**local, **pictures.axes(data)}
        yield from self._write(data, fields, partial=False)

    def _maps(self, data: ScanData, *, partial: bool) -> Iterator[Message]:
        """Yield the element maps, the open pass included: before anything that takes longer is computed."""
        reducer = self._ready()
        running = None
        if self._open is not None:
            running = reducer.open[(self._open.scan, self._open.n)]
        maps = pictures.element_maps(reducer.last_analysis, data, running)
        fields = {f"map/{element}": {**entry, **pictures.axes(data)} for element, entry in maps.items()}
        yield from self._write(data, fields, partial=partial)

    def _write(
        self, data: ScanData, fields: Mapping[str, Mapping[str, Any]], *, partial: bool
    ) -> Iterator[Message]:
        if self._products is None:
            return
        passes = data.passes
        if self._open is not None and self._open.scan == data.start.scan:
            passes = [*passes, self._open.n]
        about = pictures.common(data, passes, partial=partial)
        last = f"{passes[-1]:04d}{'p' if partial else ''}" if passes else "0000"
        items = {
            f"scan{data.start.scan:03d}_{stream.replace('/', '_')}_{last}": (
                stream,
                encode({"run": self._run, **about, **entry}),
            )
            for stream, entry in fields.items()
        }
        for message in self._products.write(items):
            yield {**message, "meta": about}

    def _result(self) -> dict[str, Any]:
        if self._run and self._reducer is None:  # nothing was scanned
            found: dict[str, Any] = {"run": self._run, "layers": [], "scans": [], "flags": []}
        else:
            found = {"run": self._run, **self._ready().result().to_dict()}
        if self._images is not None and (states := self._images.result()):
            found["radiographs"] = states
        return found

    def _ready(self) -> IonBeamReducer:
        if self._reducer is None:
            raise ValueError("no run has begun")
        return self._reducer


def _frame(value: object) -> int | None:
    """Return a frame number, None where control did not know it."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
