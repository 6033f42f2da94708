"""Strikes of the fault catalogue that are not the bench's: processes, broker, disk, clock.

``{ do = "broker_killed" }`` in a row calls the function of that name with the scene and the row's table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hil_tests.fault_run import Scene

STRIKES: dict[str, Callable[[Scene, Mapping[str, Any]], None]] = {}
