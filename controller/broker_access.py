"""Who may do what on the embedded broker: plug-ins for amqtt that close the holes we found in it.

amqtt publishes a last will without asking whether its owner may write there, and its own access list knows
neither ``#`` for the parent level nor a check at delivery. Only the broker process imports this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from amqtt.broker import BrokerContext
from amqtt.contexts import Action, BaseContext
from amqtt.plugins.authentication import FileAuthPlugin
from amqtt.plugins.base import BaseTopicPlugin
from amqtt.session import Session

from controller.topics import Access, access


class StationAuth(FileAuthPlugin):  # type: ignore[misc]
    """Passwords from a file, and a last will only where its owner may publish."""

    def __init__(self, context: BrokerContext) -> None:
        super().__init__(context)
        self._access = access(self.config.station)

    async def authenticate(self, *, session: Session) -> bool:
        """Tell whether a client may connect; a client without a name may not."""
        if await super().authenticate(session=session) is not True:
            return False
        if not session.will_flag:
            return True
        rights = self._access.get(session.username)
        return rights is not None and rights.may_write(session.will_topic or "")

    @dataclass
    class Config(FileAuthPlugin.Config):  # type: ignore[misc]
        """Adds the station to the password file."""

        password_file: str | Path | None = None
        station: str = "+"


class StationTopics(BaseTopicPlugin):  # type: ignore[misc]
    """Publishing and delivery by role; a subscription is only checked when something is delivered."""

    def __init__(self, context: BaseContext) -> None:
        super().__init__(context)
        self._access = access(self.config.station)

    async def topic_filtering(
        self, *, session: Session | None = None, topic: str | None = None, action: Action | None = None
    ) -> bool:
        """Tell whether a session may publish, receive or subscribe."""
        rights: Access | None = self._access.get(session.username) if session and session.username else None
        if rights is None or not topic:
            return False
        if action == Action.PUBLISH:
            return rights.may_write(topic)
        if action == Action.RECEIVE:
            return rights.may_read(topic)
        return not topic.startswith("$")

    @dataclass
    class Config:
        """Which station's topics."""

        station: str = "+"
