"""Reading back what a run left in its folder: record, result, journal, products, index of the raw files.

Everything may be missing: a run can end in any moment. What is not there is None or empty, never invented;
``missing`` says in words what was looked for and not found.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cbor2
import numpy as np

from controller.config import ConfigErrors, Experiment, load_experiment
from controller.journal_read import JournalReader
from controller.journal_rows import JournalError
from controller.rawfile import read_index

# RFC 8746, section 2: tags of typed arrays
TYPED_ARRAYS = {
    64: "u1", 65: ">u2", 66: ">u4", 67: ">u8", 69: "<u2", 70: "<u4", 71: "<u8", 72: "i1", 73: ">i2",
    74: ">i4", 75: ">i8", 77: "<i2", 78: "<i4", 79: "<i8", 80: ">f2", 81: ">f4", 82: ">f8", 84: "<f2",
    85: "<f4", 86: "<f8",
}  # fmt: skip
MULTI_DIMENSIONAL = 40  # RFC 8746, section 3.1.1: [shape, array], row major
LOG_LINES = 6
BROKEN = (cbor2.CBORError, ValueError, TypeError, AttributeError)


@dataclass(frozen=True)
class Product:
    """One file that reduce wrote: a map, a profile, a spectrum, a series."""

    stream: str  # map/Li, profile/Co, spectrum/pige, soc
    scan: int | None
    name: str  # of the scan
    path: Path
    partial: bool = False  # a running pass was part of it
    exposure: int | None = None  # of a frame detector or a camera, which has no scan

    @property
    def place(self) -> tuple[str, int | None]:
        """Where it is from: "scan" or "exposure", and its number."""
        if self.scan is None and self.exposure is not None:
            return "exposure", self.exposure
        return "scan", self.scan

    @property
    def kind(self) -> str:
        """What it is: the first word of the stream."""
        return self.stream.partition("/")[0]

    @property
    def what(self) -> str:
        """Of what: element or detector."""
        return self.stream.partition("/")[2]

    def load(self) -> dict[str, Any]:
        """Return the decoded file; arrays with as many numbers as its ``shape`` have that shape.

        Raises:
            ValueError: the file is gone or damaged.
        """
        try:
            fields = decode(self.path.read_bytes())
        except (OSError, *BROKEN) as error:
            raise ValueError(f"product {self.path.name} cannot be read: {error}") from error
        shape = tuple(fields.get("shape") or ())
        for key, value in fields.items():
            if shape and isinstance(value, np.ndarray) and value.size == math.prod(shape):
                fields[key] = value.reshape(shape)
        return fields


class RunFiles:
    """One run's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read: dict[str, list[tuple[str, dict[str, Any]]]] = {}

    @cached_property
    def run(self) -> str:
        """The run's id: the name that its folder had when it was made, whatever it is called now."""
        begun = next((message.get("run") for message in self.index if message.get("k") == "run"), None)
        known = (self.record or {}).get("run") or begun
        return str(known) if known else self.path.absolute().name

    @cached_property
    def record(self) -> dict[str, Any] | None:
        """What control wrote at the end; None when the run did not come to an end it could write down."""
        return _json(self.path / "record.json")

    @cached_property
    def result(self) -> dict[str, Any] | None:
        """The final result of reduce, None when there is none."""
        return _json(self.path / "result.json")

    @cached_property
    def start(self) -> dict[str, Any]:
        """How the run was started, as far as it was written down."""
        return _json(self.path / "start.json") or {}

    @cached_property
    def experiment(self) -> Experiment | None:
        """The experiment file as it was run; None when it cannot be read."""
        try:
            return load_experiment(self.path / "experiment.toml")
        except (ConfigErrors, OSError):
            return None

    @cached_property
    def index(self) -> list[dict[str, Any]]:
        """The messages that control sent to reduce, from the index of the raw files."""
        try:
            return list(read_index(self.path / "raw"))
        except OSError:
            return []

    @cached_property
    def journal(self) -> Path | None:
        """The run's extract; after a crash, the station journal that still holds its rows."""
        state = self.start.get("state")
        places = [self.path / "journal.sqlite", self.path / "state" / "journal.sqlite"]
        if isinstance(state, str):
            places.append(Path(state) / "journal.sqlite")
        return next((place for place in places if place.is_file()), None)

    def events(self, kind: str, module: str | None = None) -> Iterator[dict[str, Any]]:
        """Yield the bodies of the run's events of one kind, with ``wall_s`` and ``lab_s``, in order.

        Raises:
            ValueError: the journal is there and cannot be read.
        """
        for found, body in self._of_kind(kind):
            if module is None or found == module:
                yield dict(body)

    def by_module(self, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield module and body of the run's events of one kind, in order."""
        for module, body in self._of_kind(kind):
            yield module, dict(body)

    def _of_kind(self, kind: str) -> list[tuple[str, dict[str, Any]]]:
        """Return module and body of the events of one kind; read once, since many ask."""
        if self.journal is None:
            return []
        if kind not in self._read:
            try:
                with JournalReader.open(self.journal) as reader:
                    self._read[kind] = [
                        (event.module, {"wall_s": event.wall_s, "lab_s": event.lab_s, **event.body})
                        for event in reader.all_events(self.run, kind)
                    ]
            except JournalError as error:
                raise ValueError(str(error)) from error
        return self._read[kind]

    @cached_property
    def products(self) -> list[Product]:
        """The newest product of every stream of each scan and exposure, in their order, scans first.

        One of whole passes goes before one that a running pass was part of.
        """
        newest: dict[tuple[str, int | None, int | None], Product] = {}
        for product in self._listed() or self._unlisted():
            key = product.stream, product.scan, product.exposure
            if not product.partial or key not in newest or newest[key].partial:
                newest[key] = product
        return sorted(newest.values(), key=lambda p: (p.scan is None, p.scan or 0, p.exposure or 0))

    def find(self, stream: str, scan: int | None = None) -> Product | None:
        """Return the newest product of a stream (of one scan, if given), None when there is none."""
        fitting = [p for p in self.products if p.stream == stream and scan in (None, p.scan)]
        return fitting[-1] if fitting else None

    def missing(self) -> list[str]:
        """Return in words what a whole run has and this one lacks."""
        wanted = {
            "record.json": "control did not write how the run ended: what follows is from its journal",
            "result.json": "there is no final result of the reduction",
            "raw/index.jsonl": "there are no raw events",
        }
        told = [text for name, text in wanted.items() if not (self.path / name).is_file()]
        if self.journal is None:
            told.append("there is no journal: no readings of temperature and cell")
        return told

    def log_tail(self, name: str = "control") -> list[str]:
        """Return the last lines of a process's log, for a run that did not start."""
        try:
            lines = (self.path / "logs" / f"{name}.log").read_text(errors="replace").splitlines()
        except OSError:
            return []
        return [line.rstrip() for line in lines if line.strip()][-LOG_LINES:]

    def _listed(self) -> list[Product]:
        """Return the products that the journal names, oldest first."""
        found = []
        for body in self.events("product", "reduce"):
            path = self.path / "products" / Path(str(body["path"])).name
            meta = body.get("meta") or {}
            if path.is_file():
                name, partial = str(meta.get("name", "")), bool(meta.get("partial"))
                product = Product(body["stream"], meta.get("scan"), name, path, partial, meta.get("exposure"))
                found.append(product)
        return found

    def _unlisted(self) -> list[Product]:
        """Return products without a journal to name them: each file says itself what it is."""
        found = []
        for path in sorted((self.path / "products").glob("*.cbor")):
            try:
                inside = decode(path.read_bytes())
                kind = path.stem.split("_")[1]
            except (OSError, IndexError, *BROKEN):
                continue
            what = inside.get("element" if kind in ("map", "profile") else "detector")
            stream = f"{kind}/{what}" if what is not None else kind
            name, partial = str(inside.get("name", "")), bool(inside.get("partial"))
            n = inside.get("exposure")  # of a profile: its charge per bin
            exposure = n if isinstance(n, int) else None
            found.append(Product(stream, inside.get("scan"), name, path, partial, exposure))
        return found


def decode(data: bytes) -> dict[str, Any]:
    """Decode a product: CBOR with typed arrays (RFC 8746) as numpy arrays in their shape."""

    def tag(*given: Any) -> Any:  # cbor2 5 gives (decoder, tag), cbor2 6 (tag, immutable)
        found = next(one for one in given if isinstance(one, cbor2.CBORTag))
        kind = TYPED_ARRAYS.get(found.tag)
        if kind is not None:
            return np.frombuffer(found.value, dtype=kind)
        if found.tag == MULTI_DIMENSIONAL:
            shape, values = found.value
            return np.asarray(values).reshape(shape)
        return found

    loaded: dict[str, Any] = cbor2.loads(data, tag_hook=tag)
    return loaded


def _json(path: Path) -> dict[str, Any] | None:
    """Return a JSON object from a file, None when it is missing or damaged."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
