"""A broker inside this process: for the demo, for tests, and for `warpgate broker` on a home server.

amqtt does the MQTT; the listening sockets are ours, so that port 0 works, connections that never said
CONNECT are closed too, and `close` ends in bounded time. amqtt reports to its loggers what any client
does wrong; they are silenced unless the program itself set their level. Good for tens of clients (2.8
ms a message), not for the public: use mosquitto or EMQX for that.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import ssl
from typing import Any, Final, Self

from warpgate_core.errors import BrokerError, ConfigError
from warpgate_core.tasks import TaskSet

__all__ = ["EmbeddedBroker"]

CLOSE_TIMEOUT: Final = 3.0  # s for amqtt to say goodbye to its clients; then they are cut off

_ANONYMOUS: Final = "amqtt.plugins.authentication.AnonymousAuthPlugin"
_LISTENER: Final = "default"


class EmbeddedBroker:
    """An MQTT 3.1.1 broker as an async context manager.

        async with EmbeddedBroker() as broker:
            servers = [broker.url]

    Args:
        host: numeric address to listen at.
        port: 0 takes a free one.
        tls: a server context makes it mqtts.

    Raises:
        ConfigError: the extra ``broker`` (amqtt) is not installed.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0, *, tls: ssl.SSLContext | None = None) -> None:
        if importlib.util.find_spec("amqtt") is None:
            raise ConfigError(
                "the embedded broker needs amqtt: pip install 'warpgate-core[broker]', "
                "or use a broker such as mosquitto"
            )
        self.host = host
        self.port = port
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._broker: Any = None
        self._clients = TaskSet("embedded broker")
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        """As it stands in `servers=` and in ``WARPGATE_BROKERS``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self._tls else 'mqtt'}://{host}:{self.port}"

    async def start(self) -> None:
        """Listen.

        Raises:
            BrokerError: the address or port cannot be used.
        """
        _silence()
        from amqtt.broker import Broker  # 60 ms of import, only for who runs a broker

        broker = Broker(
            {
                "listeners": {_LISTENER: {"type": "external"}},
                "plugins": {_ANONYMOUS: {"allow_anonymous": True}},
            }
        )
        try:
            self._server = await asyncio.start_server(self._connected, self.host, self.port, ssl=self._tls)
        except OSError as error:
            raise BrokerError(f"cannot listen at {self.host}:{self.port}: {error.strerror}") from error
        try:
            await broker.start()
        except BaseException:
            self._server.close()
            raise
        self._broker = broker
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Disconnect all clients and stop listening; bounded in time."""
        server, broker = self._server, self._broker
        self._server = self._broker = None
        if server is not None:
            server.close()
        try:
            if broker is not None:
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await broker.shutdown()
        except TimeoutError:
            logging.getLogger("warpgate.signal").warning("the embedded broker was cut off: a client hangs")
        finally:
            await self._clients.close()
            for writer in tuple(self._writers):
                writer.transport.abort()
        if server is not None:
            await server.wait_closed()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._broker is None:
            writer.transport.abort()
            return
        self._writers.add(writer)
        self._clients.start(self._serve(reader, writer), "client")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from amqtt.adapters import StreamReaderAdapter, StreamWriterAdapter

        try:
            await self._broker.external_connected(
                StreamReaderAdapter(reader), StreamWriterAdapter(writer), _LISTENER
            )
        except (OSError, asyncio.IncompleteReadError) as error:
            logging.getLogger("warpgate.signal").debug("embedded broker: client lost: %s", error)
        finally:
            self._writers.discard(writer)
            writer.close()


def _silence() -> None:
    """Keep amqtt's reports about its clients off the terminal, unless the program asked for them."""
    for name in ("amqtt", "transitions"):
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.CRITICAL)
