"""Control as seen by the reduce process, written from the description of the protocol."""

import struct

import numpy as np

from controller.rawfile import RawIndex, RawWriter
from tests.edge.ion_beam_model import SETTINGS, Model


def words_of(time_s, channel, frame, frame0):
    """List-mode words: a frame word at every pulse that has events or not, a time tag every 65 536 us."""
    ticks = np.round(time_s * 1e6).astype(np.int64)
    found = []
    at, last_frame, upper = 0, 0, -1
    for pulse in range(1, int(frame.max()) + 1 if frame.size else 1):
        while at < frame.size and frame[at] < pulse:
            at += 1
        tick = int(ticks[at]) if at < frame.size else int(ticks[-1])
        found.append(0xC0000000 | ((frame0 + pulse) & 0xFFFF) << 14 | (tick >> 16) & 0x3FFF)
        upper, last_frame = tick >> 16, pulse
        while at < frame.size and frame[at] == pulse:
            tick = int(ticks[at])
            if tick >> 16 != upper:
                upper = tick >> 16
                found.append(0x80000000 | upper << 16)
            found.append(int(channel[at]) << 16 | tick & 0xFFFF)
            at += 1
    assert last_frame == (int(frame.max()) if frame.size else 0)
    return struct.pack(f">{len(found)}I", *found)


class Peer:
    """Plays passes: writes raw files and index as control does, and yields the messages."""

    def __init__(self, folder, seed=1, **model):
        self.folder = folder
        self.model = Model(**{"nx": 16, "ny": 24, "seed": seed, "dwell": 0.3, "blur": 6.0, **model})
        self.writers = {name: RawWriter(folder / "raw", name) for name in ("pixe", "pige")}
        self.index = RawIndex(folder / "raw")
        self.frame = {"pixe": 65_400, "pige": 7}  # the first wraps within the first pass
        self.chunk_words = 5_000

    def close(self):
        for file in (*self.writers.values(), self.index):
            file.close()

    def told(self, message):
        self.index.write(message)
        return message

    def run(self, settings=SETTINGS):
        return self.told({"k": "run", "run": "r1", "dir": str(self.folder), "settings": settings})

    def scan(self, scan, name, purpose):
        raster = None if purpose == "background" else self.model.raster()
        return self.told({"k": "scan", "scan": scan, "name": name, "purpose": purpose, "raster": raster})

    def a_pass(self, scan, n, *, charge=0.0, good=True, lost=0, frames_off=0):
        """Yield the messages of one pass."""
        stamp = {"lab_s": 100.0 * n, "charge_coulomb": charge, "charge_sigma_coulomb": 1e-4, "soc": None}
        frame0 = dict(self.frame)
        yield self.told({"k": "pass", "scan": scan, "n": n, "frame0": frame0, "stamp": stamp})
        counters, raw = {}, {}
        for name, writer in self.writers.items():
            time_s, channel, frame, fast, whole_s = self.model.one_pass(name)
            words = words_of(time_s, channel, frame, self.frame[name] + frames_off)
            writer.begin_pass(scan, n)
            writer.append(words)
            raw[name] = writer.end_pass()
            step = 4 * self.chunk_words
            for i, start in enumerate(range(0, len(words), step)):
                part = words[start : start + step]
                yield {"k": "events", "det": name, "scan": scan, "n": n, "i": i, "words": part}
            self.frame[name] += self.model.ny * (self.model.nx + 1)
            counters[name] = {
                "slow": len(time_s) + lost, "fast": fast + lost,
                "accumulation_s": whole_s, "real_s": whole_s,
            }  # fmt: skip
        charges = self.model.charge().reshape(self.model.ny, self.model.nx)
        yield self.told(
            {
                "k": "pass_end", "scan": scan, "n": n, "raw": raw,
                "good": good, "why": "" if good else "beam",
                "frame0": frame0, "counters": counters, "stamp": stamp,
                "lines": [[j, 0.0, 1.0, float(charges[j].sum())] for j in range(self.model.ny)],
                "pixel_charge": charges.astype("<f4").tobytes(),
            }
        )  # fmt: skip
