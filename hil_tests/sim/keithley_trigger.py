"""The trigger model of a Keithley 2450: numbered blocks that run beside the command interface.

From the reference manual 2450-901-01. A counter is incremented each time it is reached and branches while it
is below its target; then it is as if it had been reset. An event is remembered until a block asks for it.
What the manual leaves open: branching to block 0 ends the model; a block that does not exist ends it, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

BLOCK_S = 1e-4  # of a block that neither waits nor measures, so that no loop stands still
MOST_AT_ONCE = 100_000


@dataclass(frozen=True)
class Block:
    """One block: what it is, and its numbers."""

    kind: str  # buffer, source, delay, measure, limit, counter, always, event, reset, nothing
    numbers: tuple[float, ...] = ()
    word: str = ""


class TriggerModel:
    """Runs blocks in lab time.

    Args:
        measure: makes one reading, stores it, and returns the value that limits look at.
        clear: empties the buffer.
        switch: turns the output on or off.
        reading_s: how long a reading takes.
    """

    def __init__(
        self,
        measure: Callable[[], float],
        clear: Callable[[], None],
        switch: Callable[[bool], None],
        reading_s: Callable[[], float],
    ) -> None:
        self.blocks: dict[int, Block] = {}
        self.state = "EMPTY"
        self.at = 0  # block that ran last
        self.due_s = 0.0  # lab time of the next block
        self._next = 0
        self._measure = measure
        self._clear = clear
        self._switch = switch
        self._reading_s = reading_s
        self._counters: dict[int, int] = {}
        self._event = False
        self._values: dict[int, float] = {}
        self._latest = 0.0

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self.state == "RUNNING"

    def load_empty(self) -> None:
        """Forget every block."""
        self.blocks.clear()
        self.state, self.at = "EMPTY", 0

    def initiate(self, now_s: float) -> None:
        """Start at the first block."""
        self.state, self._next, self.due_s = "RUNNING", 1, now_s
        self._counters.clear()
        self._event = False

    def abort(self) -> None:
        """Stop where it is; the output stays as it is."""
        if self.running:
            self.state = "ABORTED"

    def event(self) -> None:
        """A command trigger came."""
        self._event = True

    def step(self) -> None:
        """Execute the block that is due; ``due_s`` is then when the next one is."""
        block = self.blocks.get(self._next)
        if block is None:
            self.state = "IDLE"
            return
        self.at = number = self._next
        self._next = number + 1
        self.due_s += BLOCK_S
        if block.kind == "buffer":
            self._clear()
        elif block.kind == "source":
            self._switch(bool(block.numbers[0]))
        elif block.kind == "delay":
            self.due_s += block.numbers[0]
        elif block.kind == "measure":
            self.due_s += self._reading_s()
            self._values[number] = self._latest = self._measure()
        else:
            self._next = self._branch(number, block)

    def _branch(self, number: int, block: Block) -> int:
        if block.kind == "always":
            return int(block.numbers[0])
        if block.kind == "counter":
            target, there = (int(value) for value in block.numbers)
            self._counters[number] = self._counters.get(number, 0) + 1
            if self._counters[number] < target:
                return there
            self._counters[number] = 0
        elif block.kind == "reset":
            self._counters[int(block.numbers[0])] = 0
        elif block.kind == "event":
            happened, self._event = self._event, False
            if happened:
                return int(block.numbers[0])
        elif block.kind == "limit" and self._meets(block):
            return int(block.numbers[2])
        return number + 1

    def _meets(self, block: Block) -> bool:
        low, high = sorted(block.numbers[:2])
        value = self._values.get(int(block.numbers[3]), self._latest)
        if block.word == "OUT":
            return not low <= value <= high
        if block.word == "IN":
            return low <= value <= high
        return value > block.numbers[1] if block.word == "ABOV" else value < block.numbers[0]
