"""Soak item ``page``: maps of 1 MB twice a second in a real Chromium for ten minutes, and nothing grows."""

from __future__ import annotations

import os
import statistics
import time

from hil_tests.browser import browser
from hil_tests.page_stage import served
from hil_tests.soak.runner import Failed, Workshop

LASTS_S = float(os.environ.get("OPERANDO_PAGE_S", "600"))
SETTLED = 0.2  # of that time: compared from here on
LOOK_S = 10.0
PIXELS = 512  # of a map of 32-bit numbers: 1 MB
GROWTH_MB = 20.0
GROWTH_NODES = 200


def page_growth(work: Workshop) -> str:
    """Look at heap and nodes every ten seconds, without garbage; the host goes away once."""
    with served("flood", pixels=PIXELS) as address, browser() as chrome:
        seen = chrome.open(address)
        devtools = seen.page.context.new_cdp_session(seen.page)
        devtools.send("HeapProfiler.enable")
        heap, nodes = [], []
        began = time.monotonic()
        gone = False
        while time.monotonic() - began < LASTS_S:
            seen.page.wait_for_timeout(LOOK_S * 1000)
            devtools.send("HeapProfiler.collectGarbage")
            heap.append(devtools.send("Runtime.getHeapUsage")["usedSize"] / 2**20)
            nodes.append(seen.page.evaluate("document.getElementsByTagName('*').length"))
            if not gone and time.monotonic() - began > LASTS_S / 2:
                gone = True
                seen.page.evaluate("operando.feed.socket.close()")
                seen.until("document.documentElement.dataset.link === 'lost'")
                seen.until("document.documentElement.dataset.link === 'live'")
        passes = seen.page.evaluate("operando.model.products.get('map/Li').passes[0]")
    begin = int(len(heap) * SETTLED)
    third = max(1, (len(heap) - begin) // 3)
    early, late = statistics.median(heap[begin : begin + third]), statistics.median(heap[-third:])
    said = (
        f"{LASTS_S:.0f} s, {passes} passes of 1 MB maps; heap {early:.1f} then {late:.1f} MB, largest "
        f"{max(heap):.1f}; nodes {nodes[begin]} then {nodes[-1]}; errors {len(seen.errors)}"
    )
    if late - early > GROWTH_MB or nodes[-1] - nodes[begin] > GROWTH_NODES or seen.errors:
        raise Failed(f"{said}\n{seen.errors[:3]}")
    return said
