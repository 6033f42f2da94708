"""What a SECoP node knows, and whom it tells: reports of every parameter, pushed when they change.

A value that is not of the present is an error report, and the status of its module says so in the same
breath.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from controller.gateways import secop_model as model
from controller.gateways.secop_wire import message

if TYPE_CHECKING:
    from controller.mirror import Heard, Mirror

HEATED = (model.HEATER, "temperature")
PENDING_S = 10.0  # until the host's own target must have come round


class NodeState:
    """The listener of a mirror: from what it knows to what clients are told."""

    def __init__(
        self, mirror: Mirror, push: Callable[[str, bytes], None], hang_up: Callable[[], None], *,
        write: bool = False, hands: Callable[[], list[str]] = list,
    ) -> None:  # fmt: skip
        """Make the state of a node.

        Args:
            mirror: what is known.
            push: sends a message to all who want to hear of a module.
            hang_up: closes all connections: what the node is has changed.
            write: whether targets can be set.
            hands: who commands at the moment.
        """
        self._mirror = mirror
        self._push = push
        self._hang_up = hang_up
        self._write = write
        self._hands = hands
        self.node: model.Node | None = None
        self.reports: dict[tuple[str, str], model.Report] = {}
        self._pending: tuple[float, float] | None = None  # a target set here, and how long it is waited for

    def heard(self, heard: Heard) -> None:
        """Take note of a message of the station."""
        if heard.topic == "describe":
            self._rebuild()
        elif heard.topic.startswith("state/"):
            module, _, name = heard.topic.removeprefix("state/").partition("/")
            parameter = self.node.by_key.get((module, name)) if self.node is not None else None
            self.refresh({parameter.module} if parameter is not None else set())
        elif heard.topic == "status" or heard.topic.startswith("alarm/"):
            self.refresh()

    def connection(self, connected: bool) -> None:
        """Take note of a connection to the broker that came or went."""
        self.refresh()

    def _rebuild(self) -> None:
        if not self._mirror.describe:
            return
        node = model.build(self._mirror.describe, write=self._write)
        if self.node is not None and node.description == self.node.description:
            return
        self.node, self.reports = node, {}
        self._hang_up()
        self.refresh()

    def refresh(self, modules: set[str] | None = None) -> None:
        """Compute what modules are now (default all), and push what changed, value and status together."""
        node = self.node
        if node is None:
            return
        for module in modules if modules is not None else node.description["modules"]:
            for name, told in self._now(module).items():
                before = self.reports.get((module, name))
                if before is not None and model.comparable(before) == model.comparable(told):
                    continue
                self.reports[module, name] = told
                self._push(module, update(module, name, told))

    def _now(self, module: str) -> dict[str, model.Report]:
        """Return the reports of all parameters of a module."""
        node = self.node
        if node is None:
            return {}
        main, found = node.parameters[module, "value"], {}
        if main.key is None:
            found["value"], status = self._made(node, module)
        else:
            for (owner, name), parameter in node.parameters.items():
                if owner == module and parameter.key is not None:
                    found[name] = model.report(self._mirror, parameter)
            status = self._with_pending(main, model.status(self._mirror, main, found["value"]))
            if self._pending is not None and main.key == HEATED and (module, "target") in self.reports:
                found["target"] = self.reports[module, "target"]
        before = self.reports.get((module, "status"))
        if before is not None and _same(before[1][0], status):
            found["status"] = before
        else:
            found["status"] = ("value", [list(status), {"t": time.time()}])
        return found

    def _made(self, node: model.Node, module: str) -> tuple[model.Report, tuple[int, str]]:
        """Return value and status of a module that is no parameter of the host."""
        if module == node.guard:
            return model.guard_report(self._mirror)
        return ("value", [", ".join(self._hands()), {}]), (model.IDLE, "")

    def _with_pending(self, main: model.Parameter, status: tuple[int, str]) -> tuple[int, str]:
        """A target that was just set makes the heater busy before the host's own word of it comes round."""
        if self._pending is None or main.key != HEATED or status[0] >= model.ERROR:
            return status
        target, until_s = self._pending
        if self._mirror.value(model.HEATER, "target") == target or time.monotonic() > until_s:
            self._pending = None
            return status
        return model.BUSY, f"on its way to {target:.1f} K"

    def asked(self, parameter: model.Parameter, target_k: float) -> list[Any]:
        """A client has set the target: push it and the status to everybody; return the target's report."""
        self._pending = (target_k, time.monotonic() + PENDING_S)
        data = [target_k, {"t": time.time()}]
        self.reports[parameter.module, parameter.name] = ("value", data)
        self._push(parameter.module, update(parameter.module, parameter.name, ("value", data)))
        self.refresh({parameter.module})
        return data


def update(module: str, name: str, told: model.Report) -> bytes:
    """Return the message that tells a report."""
    kind, data = told
    return message("update" if kind == "value" else "error_update", f"{module}:{name}", data)


def _same(before: list[Any], status: tuple[int, str]) -> bool:
    """Tell whether a status says the same; seconds that are counted in its text do not matter."""
    return before[0] == status[0] and re.sub(r"\d+", "#", before[1]) == re.sub(r"\d+", "#", status[1])
