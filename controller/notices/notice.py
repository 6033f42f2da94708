"""What people are told, in words: one notice of one thing that happened, and many of them as one message."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from controller.journal_rows import Event

TEXT_LIMIT = 600  # characters of one notice; a device may answer with anything
DIGEST_LIMIT = 25  # notices written out in one message
ENDS = {
    0: "done", 2: "not begun: a wrong file", 3: "ended by an instrument", 4: "stopped by the guard",
    5: "aborted by a person", 6: "finished, with gaps",
}  # fmt: skip
KINDS = (
    "trip", "trip_cleared", "run", "run_started", "question", "answer", "gap", "supervisor",
)  # fmt: skip  # of the journal


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing that happened.

    Attributes:
        id: the same for the same thing, however often it is sent.
        kind: trips, ends, questions, gaps, host, starts or test.
        urgent: whether it is sent at once; what is not may wait and be gathered.
        title: a few words.
        text: a sentence or two, with what to do.
        t: wall seconds at which it happened.
        run: its run, empty if it belongs to none.
    """

    id: str
    kind: str
    urgent: bool
    title: str
    text: str
    t: float
    run: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


def plain(text: object, limit: int = TEXT_LIMIT) -> str:
    """Return text on one line, without control characters, no longer than ``limit``."""
    words = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return words if len(words) <= limit else words[: limit - 1] + "…"


def of_event(event: Event) -> Notice | None:
    """Return what to tell about a row of the journal, None if nothing."""
    body, run = event.body, event.run or str(event.body.get("run") or "")
    told: tuple[str, bool, str, str] | None = None
    if event.kind == "trip":
        then = f"The guard acted: {body.get('action')}."
        clear = f" Clear it at the station when its cause is gone: operando clear {body.get('id')}."
        told = ("trips", True, f"TRIP {body.get('id')}", f"{body.get('text')}. {then}" + clear * bool(
            body.get("latch", True)))  # fmt: skip
    elif event.kind == "trip_cleared":
        told = ("trips", False, f"cleared: {body.get('id')}", f"by {body.get('by')}")
    elif event.kind == "run" and body.get("state") == "ended":
        code = body.get("code")
        how = ENDS.get(code if isinstance(code, int) else -1, f"exit code {code}")
        told = ("ends", True, f"run {how}", str(body.get("outcome", "")))
    elif event.kind == "run_started":
        told = ("starts", False, "run begun", str(body.get("experiment", "")))
    elif event.kind == "question":
        choices = " | ".join(map(str, body.get("choices") or ()))
        until = body.get("expires")
        limit = f" Without an answer by {_hour(until)}: {body.get('default')}." if until else ""
        how = f" [{choices}]" if choices else ""
        told = ("questions", True, "a question", f"{body.get('text')}{how} {body.get('answer')}.{limit}")
    elif event.kind == "answer":
        told = (
            "questions",
            False,
            "answered",
            f"{body.get('id')}: {body.get('choice', '')} ({body.get('by')})",
        )
    elif event.kind == "gap" and not body.get("end"):
        told = ("gaps", False, f"gap in {body.get('module') or event.module}", str(body.get("text", "")))
    elif event.kind == "supervisor":
        return of_supervisor(body)
    if told is None:
        return None
    kind, urgent, title, text = told
    return Notice(
        f"{event.boot}:{event.seq}", kind, urgent, plain(title, 120), plain(text), event.wall_s, run
    )


def of_supervisor(body: dict[str, Any]) -> Notice:
    """Return what to tell about something that the supervisor did on its own."""
    results = [result for result in body.get("results") or () if isinstance(result, dict)]
    sure = [str(result.get("output")) for result in results if result.get("confirmed")]
    unsure = [str(result.get("output")) for result in results if not result.get("confirmed")]
    text = str(body.get("what", ""))
    text += f". Confirmed off: {', '.join(sure)}." if sure else ""
    text += f" NOT CONFIRMED OFF: {', '.join(unsure)}: look at the station." if unsure else ""
    t = body.get("t")
    when = float(t) if isinstance(t, int | float) else time.time()
    title = "the supervisor acted" if results else "a process of the host ended"
    name = f"supervisor:{when!r}:{body.get('what')}"
    return Notice(
        plain(name, 200), "host", bool(results), title, plain(text), when, str(body.get("run") or "")
    )


@dataclass(frozen=True, slots=True)
class Letter:
    """One message to one receiver: one notice or several, the urgent ones first.

    Attributes:
        station: whose.
        notices: what happened.
        dropped: notices that were given up before, as too many waited.
    """

    station: str
    notices: tuple[Notice, ...]
    dropped: int = 0

    @property
    def urgent(self) -> bool:
        """Whether any of it could not wait."""
        return any(one.urgent for one in self.notices)

    @property
    def subject(self) -> str:
        """The first of it, and how many more there are."""
        more = f" (+{len(self.notices) - 1} more)" if len(self.notices) > 1 else ""
        return f"[{self.station}] {self.notices[0].title}{more}"

    @property
    def body(self) -> str:
        """All of it, a paragraph for each; of a long list the first."""
        shown = self.notices[:DIGEST_LIMIT]
        parts = [
            f"{_moment(one.t)}  {one.title}{f'  ({one.run})' if one.run else ''}\n{one.text}" for one in shown
        ]
        rest = len(self.notices) - len(shown)
        parts += [f"and {rest} more: see the journal"] if rest else []
        parts += [f"{self.dropped} earlier notices were given up, as too many waited"] if self.dropped else []
        return "\n\n".join(parts)


def letter(station: str, waiting: Sequence[Notice], dropped: int = 0) -> Letter:
    """Return what waits as one message."""
    ordered = sorted(waiting, key=lambda one: (not one.urgent, one.kind != "trips", one.t))
    return Letter(station, tuple(ordered), dropped)


def _hour(wall_s: object) -> str:
    return time.strftime("%H:%M", time.localtime(float(wall_s))) if isinstance(wall_s, int | float) else "?"


def _moment(wall_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(wall_s))
