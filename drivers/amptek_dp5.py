"""Amptek DP5 family as list-mode photon detectors over UDP or RS-232: SDD (DP5, X-123, PX5), HPGe (PX5-HPGe).

The packets are in ``amptek_packets``, the meaning of list-mode words in ``amptek_listmode``. What shapes
this driver: the device has no watchdog, so counting always has a preset real time as its lifetime; reading
the list is destructive and a reply is many datagrams, so a lost one is lost words and is reported as such,
never asked for again; a processor that rebooted has lost its configuration and must be prepared again.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from drivers import amptek_packets as packets
from drivers.clock import Clock
from drivers.errors import BadReply, DriverError, NoReply, OutOfRange, Refused
from drivers.line import Interrupted, Line
from drivers.roles import DetectorStatus, Identity, ListChunk, Role

T = TypeVar("T")

TIMEOUT_S = 1.0  # Amptek's own for Ethernet
SERIAL_TIMEOUT_S = 2.5  # Amptek's own for RS-232: 8192 channels with status take 2.14 s at 115200 baud
SERIAL_MARGIN = 1.15  # of the time that the largest reply needs on a slower line
ATTEMPTS = 3  # at most three, as in Amptek's code; only for what is harmless twice: disabling, the status
LIST_READS = 64  # replies that the list may need to run empty with counting disabled
BIAS_CHANGED = 0.05  # of the detector bias, from here on it is another one
LIFETIME_S = 3600.0  # preset real time of one start, unless the settings say otherwise
LONGEST_PRESET_S = 4_294_967.0  # real time is counted in 32-bit milliseconds
FRAME_SYNC = 3
READ_BACK_NAMES = 32  # one query of so many names stays below a packet, read back too
BIAS = ("HVSE",)  # turns the detector's bias on: only for the detector that the settings name
DETECTORS = {"sdd": "a PX5 or DP5 without HPGe supply", "hpge": "a PX5 with the HPGe supply"}
LIST_CLOCK_NS = {1e-6: "1000", 1e-7: "100"}


class AmptekDp5:
    """One processor with its detector.

    Args:
        line: UDP line to port 10001 of the processor, or a serial line (115200 baud).
        name: for messages, as in the station file.
        clock: not used by this instrument's driver; every driver takes it.
        settings: ``detector`` ("sdd" or "hpge"), ``channels``, ``list_clock_s`` (1e-6 or 1e-7); optional
            ``lifetime_s`` (real time after which counting stops by itself) and ``commands`` (text commands
            for ``prepare``, name -> value, such as TPEA, GAIN or THSL).
    """

    roles = frozenset({Role.EVENT_DETECTOR})

    def __init__(self, line: Line, *, name: str, clock: Clock, settings: Mapping[str, Any]) -> None:
        self.name = name
        self._line = line
        self._serial = line.character_s > 0.0
        largest_s = packets.packet_bytes(packets.LARGEST_DATA_BYTES) * line.character_s
        self._timeout_s = max(SERIAL_TIMEOUT_S, SERIAL_MARGIN * largest_s) if self._serial else TIMEOUT_S
        self._clock = clock
        self._detector: str = settings["detector"]
        if self._detector not in DETECTORS:
            raise OutOfRange(f"detector {self._detector!r} is none of {', '.join(DETECTORS)}", device=name)
        self._channels = int(settings["channels"])
        self._list_clock_s = min(LIST_CLOCK_NS, key=lambda one: abs(one - float(settings["list_clock_s"])))
        if abs(self._list_clock_s / float(settings["list_clock_s"]) - 1) > 1e-6:
            raise OutOfRange(f"there is no list clock of {settings['list_clock_s']:g} s", device=name)
        self._lifetime_s = float(settings.get("lifetime_s", LIFETIME_S))
        if not 1.0 <= self._lifetime_s <= LONGEST_PRESET_S / 2:
            raise OutOfRange(f"no lifetime of {self._lifetime_s:g} s", device=name)
        self._commands: dict[str, str] = dict(settings.get("commands", {}))
        self._prepared = False
        self._rebooted = False
        self._counting = False
        self._preset_s = 0.0
        self._last_real_s = 0.0
        self._sharing_asked = False
        self._bias_v: float | None = None  # as it was when it was first prepared

    # --- who it is ---------------------------------------------------------------------------------------

    async def identify(self) -> Identity:
        """Read type, firmware and serial number.

        Raises:
            BadReply: not the kind of processor that the detector needs.
        """
        status = await self._status()
        self._check_detector(status)
        return Identity(
            manufacturer="Amptek",
            model=status.model,
            serial=str(status.serial),
            firmware=f"{status.firmware}.{status.firmware_build} (FPGA {status.fpga})",
        )

    async def prepare(self) -> list[str]:
        """Stop counting, keep other computers away, configure, verify, clear.

        It may be called again for a processor that has rebooted, but never switches a bias on then.

        Raises:
            Refused: no list-mode option, list mode cannot be set to frame numbers, or the detector bias is
                not what it was before a reboot.
            BadReply: another kind of processor, or the configuration read back differs.
        """
        self._prepared = False
        self._check_detector(await self._status())
        again = self._rebooted and self._bias_v is not None
        if again and any(name in self._commands for name in BIAS):
            raise Refused("has rebooted: only a person switches its bias on again", device=self.name)
        await self._command(packets.REFUSE_SHARING)
        self._sharing_asked = False
        await self.stop()
        await self.configure({"MCAC": str(self._channels), **self._commands})
        await self._set_list_mode()
        await self._empty_list()
        await self.clear()
        await self._renew(0.0)
        await self._check_bias(again=again)
        self._rebooted = False
        self._prepared = True
        return [
            f"{self.name}: this instrument has no watchdog; counting ends by itself {self._lifetime_s:g} s "
            "after the last start (preset real time)",
            f"{self.name}: detector bias and cooling stay as they are when the host stops or dies",
            *self._serial_notes(),
        ]

    async def configure(self, commands: Mapping[str, str]) -> None:
        """Send text commands and verify each of them by reading it back.

        HVSE (detector bias) is sent only to the kind of processor that the settings name, and only if it says
        so itself at this moment.

        Raises:
            BadReply: the value read back is another one.
            Refused: the device does not know a command; those before it may be applied already.
        """
        if any(name in commands for name in BIAS):
            self._check_detector(await self._status())
        for text in packets.encode_text(commands.items()):
            await self._command(packets.CONFIGURE, text)
        await self._verify(commands)

    # --- counting ------------------------------------------------------------------------------------------

    async def status(self) -> DetectorStatus:
        """Read counters and state; poll it at 1 Hz, which also keeps other computers away."""
        return self._reading(await self._status())

    def _reading(self, status: packets.Status) -> DetectorStatus:
        return DetectorStatus(
            monotonic_s=time.monotonic(),
            fast_counts=status.fast_counts,
            slow_counts=status.slow_counts,
            accumulation_s=status.accumulation_s,
            real_s=status.real_s,
            mca_enabled=status.mca_enabled,
            list_mode=status.list_option and status.list_sync == FRAME_SYNC,
            rebooted=self._rebooted,
            configured=self._prepared,
            temperature_k=status.detector_k or None,  # 0 K: no sensor
            high_voltage_v=status.high_voltage_v,
            problems=tuple(self._problems(status)),
        )

    async def start(self) -> None:
        """Renew the lifetime, enable counting and verify that it counts.

        Raises:
            Refused: not prepared since it was connected or since it rebooted.
        """
        status = await self._status()
        if not self._prepared:
            why = "has rebooted: its configuration is gone" if self._rebooted else "is not prepared"
            raise Refused(f"does not start: it {why}", device=self.name)
        await self._renew(status.real_s)
        await self._command(packets.ENABLE)
        self._counting = True
        if not (await self._status()).mca_enabled:
            raise BadReply("was told to count and does not", device=self.name)

    async def stop(self) -> None:
        """Disable counting and verify it."""
        self._counting = False
        await _at_most(ATTEMPTS, lambda: self._command(packets.DISABLE))
        if (await self._status()).mca_enabled:
            raise BadReply("was told to stop and still counts", device=self.name)

    async def clear(self) -> None:
        """Clear the spectrum with its counters, and the list-mode timer."""
        await self._command(packets.CLEAR_SPECTRUM)
        self._last_real_s = 0.0
        await self._command(packets.CLEAR_LIST_TIMER)

    async def read_words(self) -> ListChunk:
        """Read and remove what the FIFO holds.

        Raises:
            NoReply, BadReply: the words of this reply may be gone; the next request takes a fresh socket.
        """
        try:
            words, overflow = await self._ask(packets.LIST_DATA, packets.parse_list_data)
        except (NoReply, BadReply) as error:
            told = type(error)(
                f"{error.message}; list-mode words may be lost",
                device=self.name, request=error.request, reply=error.reply,
            )  # fmt: skip
            raise told from error
        return ListChunk(words, overflow)

    async def read_spectrum(self) -> list[int]:
        """Read the spectrum without clearing it, so that a lost reply loses nothing."""
        return (await self.spectrum())[0]

    async def spectrum(self) -> tuple[list[int], DetectorStatus]:
        """Read spectrum and status of the same moment, without clearing; asked for again if it is damaged.

        Raises:
            BadReply: no status came with it, or not as many channels as configured.
        """
        found = await _at_most(
            ATTEMPTS, lambda: self._ask(packets.SPECTRUM_AND_STATUS, packets.parse_spectrum)
        )
        counts, status = found
        if status is None:
            raise BadReply("sent a spectrum without the status that was asked for", device=self.name)
        self._check_detector(status)
        if len(counts) != self._channels:
            raise BadReply(f"sent {len(counts)} channels, {self._channels} were configured", device=self.name)
        self._remember(status)
        return counts, self._reading(status)

    async def off(self) -> None:
        """Stop counting, before whatever else wants the line. Bias and cooling stay."""
        self._line.interrupt()
        self._counting = False
        await _at_most(ATTEMPTS, lambda: self._command(packets.DISABLE, urgent=True))

    async def close(self) -> None:
        """Release the line."""
        await self._line.close()

    # --- inside --------------------------------------------------------------------------------------------

    def _check_detector(self, status: packets.Status) -> None:
        if (self._detector == "hpge") != status.hpge_supply:
            raise BadReply(
                f"is a {status.model}; the settings say {self._detector}, which needs "
                f"{DETECTORS[self._detector]}. Nothing was sent to it",
                device=self.name,
            )

    async def _status(self) -> packets.Status:
        """Read the status; remember what its reading clears."""
        status = await _at_most(ATTEMPTS, lambda: self._ask(packets.STATUS, packets.parse_status))
        self._remember(status)
        return status

    def _remember(self, status: packets.Status) -> None:
        """Keep what the reading of a status clears in the instrument."""
        if status.rebooted or status.real_s < self._last_real_s:
            self._rebooted = True
            self._prepared = self._counting = False
        self._last_real_s = status.real_s

    def _serial_notes(self) -> list[str]:
        """Say what a serial line cannot carry."""
        if not self._serial:
            return []
        words = 1.0 / (packets.WORD_BYTES * self._line.character_s)
        data = self._channels * packets.BYTES_PER_CHANNEL + packets.STATUS_BYTES
        spectrum_s = packets.packet_bytes(data) * self._line.character_s
        return [
            f"{self.name}: this serial line carries {words:.0f} list words a second (an event and its pixel "
            f"are two); a spectrum with its status takes {spectrum_s:.2f} s"
        ]

    def _problems(self, status: packets.Status) -> list[str]:
        problems = []
        if self._rebooted:
            problems.append("the processor has rebooted: its configuration is gone")
        if status.preset_time_reached:
            problems.append(f"counting was ended by its preset of {self._preset_s:g} s real time")
        elif self._counting and not status.mca_enabled:
            problems.append("counting has stopped by itself")
        if self._prepared and status.list_sync != FRAME_SYNC:
            sync = packets.SYNC_MODES[status.list_sync]
            problems.append(f"list mode has {sync} synchronisation, not frame numbers")
        if self._sharing_asked:
            problems.append("another computer asks to share the interface")
        return problems

    async def _check_bias(self, *, again: bool) -> None:
        """Remember the detector bias; after a reboot it must be what it was."""
        bias_v = (await self._status()).high_voltage_v
        before_v = bias_v if self._bias_v is None else self._bias_v
        if again and abs(bias_v - before_v) > BIAS_CHANGED * abs(before_v):
            text = f"has rebooted and its bias is {bias_v:g} V instead of {before_v:g} V"
            raise Refused(text, device=self.name)
        self._bias_v = bias_v

    async def _empty_list(self) -> None:
        """Read what an earlier host left: in a full list there is no room for the record of a clear."""
        for _ in range(LIST_READS):
            if not (await _at_most(ATTEMPTS, self.read_words)).words:
                return
        raise BadReply("its list does not run empty with counting disabled", device=self.name)

    async def _set_list_mode(self) -> None:
        """Frame numbers and the wanted clock; the commands are sent only where the status says otherwise.

        The names SYNC and CLKL are Amptek's, their values are from memory: the status decides.
        """
        status = await self._status()
        if not status.list_option:
            raise Refused(
                f"is a {status.model} without the list-mode option: it sends whole spectra only, and a map "
                "needs the time of every photon. Ask Amptek for the option, or give the role to another one",
                device=self.name,
            )
        texts = []
        if status.list_sync != FRAME_SYNC:
            texts.append(("SYNC", "FRAME"))
        if status.list_clock_s != self._list_clock_s:
            texts.append(("CLKL", LIST_CLOCK_NS[self._list_clock_s]))
        for text in packets.encode_text(texts):
            await self._command(packets.CONFIGURE, text)
        if texts:
            status = await self._status()
        if status.list_sync != FRAME_SYNC or status.list_clock_s != self._list_clock_s:
            sync = packets.SYNC_MODES[status.list_sync]
            raise Refused(
                f"list mode stays at {sync} synchronisation and {status.list_clock_s:g} s", device=self.name
            )

    async def _renew(self, real_s: float) -> None:
        """Let counting end by itself one lifetime from now; real time counts on from the last clear."""
        left_s = self._preset_s - real_s
        if not self._lifetime_s / 2 <= left_s <= self._lifetime_s:
            preset_s = real_s + self._lifetime_s
            if preset_s > LONGEST_PRESET_S:
                raise OutOfRange("its real time is at the end of its range: clear it", device=self.name)
            await self.configure({"PRER": f"{preset_s:.1f}"})
            self._preset_s = preset_s

    async def _verify(self, commands: Mapping[str, str]) -> None:
        names = list(commands)
        for start in range(0, len(names), READ_BACK_NAMES):
            asked = names[start : start + READ_BACK_NAMES]
            query = b"".join(packets.encode_text((name, "?") for name in asked))
            values = await self._ask(packets.CONFIGURATION, packets.parse_configuration, query)
            for name in asked:
                if not _same(commands[name], values.get(name)):
                    raise BadReply(
                        f"{name} was set to {commands[name]} and reads back as {values.get(name)}",
                        device=self.name,
                    )

    async def _command(self, pid: packets.Pid, data: bytes = b"", *, urgent: bool = False) -> None:
        acknowledge = await self._ask(pid, packets.parse_acknowledge, data, urgent=urgent)
        if acknowledge.code == packets.SHARING_ASKED:
            self._sharing_asked = True

    async def _ask(
        self,
        pid: packets.Pid,
        parse: Callable[[bytes], T | None],
        data: bytes = b"",
        *,
        urgent: bool = False,
    ) -> T:
        request = packets.request(pid, data)
        try:
            return await self._line.ask(
                request,
                (lambda buffer: parse(packets.from_sync(buffer))) if self._serial else parse,
                timeout_s=TIMEOUT_S if urgent else self._timeout_s,
                device=self.name,
                urgent=urgent,
            )
        except DriverError as error:
            if error.device:
                raise
            raise type(error)(error.message, device=self.name, request=request, reply=error.reply) from error


async def _at_most(attempts: int, exchange: Callable[[], Awaitable[T]]) -> T:
    """Do an exchange again after a missing or damaged reply."""
    for _ in range(attempts - 1):
        try:
            return await exchange()
        except Interrupted:
            raise
        except (NoReply, BadReply):
            continue
    return await exchange()


def _same(wanted: str, got: str | None) -> bool:
    """Compare what was set with what is read back; devices write numbers with digits of their own."""
    if got is None:
        return False
    decimals = len(got.partition(".")[2])
    rounding = 0.5 * 10.0**-decimals if decimals else 0.0
    try:
        return abs(float(wanted) - float(got)) <= rounding + 1e-4 * abs(float(wanted))
    except ValueError:
        return wanted.strip().upper() == got.strip().upper()
