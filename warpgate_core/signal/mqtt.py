"""aiomqtt's client on an asyncio stream: CONNECT, SUBSCRIBE, publish, keepalive, disconnect.

aiomqtt stays the engine (its futures for CONNACK and SUBACK, its reading of reason codes, paho's protocol
underneath); replaced are the five callbacks that tie it to a descriptor and a thread. What they rely on
inside aiomqtt 2.5 and paho 2.x is checked by a test, so an update that moves it fails there and not in
the field.

Published with QoS 0: an acknowledgement of the recipient itself is worth more than the broker's, and
comes in the same time. Messages are handed over from the callback; aiomqtt's queue and iterator (a task
per message) are not in the way. Keepalive is one timer, not a loop that wakes every second.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import aiomqtt
import paho.mqtt.client as paho
from aiomqtt.exceptions import MqttConnectError

from warpgate_core.errors import BrokerError
from warpgate_core.signal.brokers import Broker
from warpgate_core.signal.envelope import MAX_SEALED
from warpgate_core.signal.stream import BrokerStream

__all__ = ["KEEPALIVE", "MqttClient"]

# Seconds. Half of what stateful firewalls forget idle TCP connections after at worst (60 s seen with
# carrier networks; RFC 5382 asks for 2 h 4 min). The broker closes after 1.5 times this (MQTT 3.1.1
# section 3.1.2.10).
KEEPALIVE: Final = 30
KEEPALIVE_CHECK: Final = KEEPALIVE / 4  # so a ping leaves at 37 s at the latest, before the broker's 45 s
CLOSE_GRACE: Final = 0.5  # s for DISCONNECT to leave; it is a courtesy
MAX_PACKET: Final = MAX_SEALED + 1024  # bytes; what a broker may announce, with topic and header

# aiomqtt and paho log what goes wrong before they raise it; we report it once, as an error with the
# broker's name.
_SILENT: Final = logging.Logger("warpgate.mqtt", logging.CRITICAL + 1)


T = TypeVar("T")


class MqttClient(aiomqtt.Client):
    """One MQTT connection to one broker, used once.

    Args:
        stream: connected; closed by `stop`, or when the connection ends.
        broker: whom we talk to, with credentials.
        on_payload: called with the payload of each message. Must not raise.
    """

    def __init__(self, stream: BrokerStream, broker: Broker, on_payload: Callable[[bytes], None]) -> None:
        super().__init__(
            broker.host,
            broker.port,
            username=broker.username,
            password=broker.password,
            identifier="wg" + secrets.token_hex(10),  # MQTT 3.1.1 section 3.1.3.1: 23 characters
            keepalive=KEEPALIVE,
            logger=_SILENT,
        )
        self._stream = stream
        self._on_payload = on_payload
        self._timer: asyncio.TimerHandle | None = None
        self._client.disable_logger()
        self._client.on_publish = (
            None  # nobody waits for QoS 0 to be written; building its arguments costs 15 us
        )
        self._client._create_socket = self._stream_for_paho  # type: ignore[assignment,method-assign]  # noqa: SLF001
        stream.on_data = self._readable
        stream.on_writable = self._flush

    # for the owner

    async def start(self) -> None:
        """CONNECT and wait for CONNACK. Unbounded in time: put `asyncio.timeout` around it.

        Raises:
            BrokerError: refused, or closed.
        """
        self._client_connect()  # does not block: the stream is there already
        try:
            await asyncio.shield(self._connected)  # aiomqtt's callbacks cannot stand a cancelled future
        except aiomqtt.MqttError as error:
            raise BrokerError(_why(error, self._stream)) from error

    async def join(self, topic: str, timeout: float) -> None:
        """SUBSCRIBE and wait for SUBACK. The request is on its way before the first wait.

        Raises:
            BrokerError: refused, closed, or no answer within `timeout` seconds.
        """
        try:
            codes = await self.subscribe(topic, qos=0, timeout=timeout)
        except aiomqtt.MqttError as error:
            raise BrokerError(_why(error, self._stream)) from error
        numbers = [code if isinstance(code, int) else code.value for code in codes]
        if any(number >= 0x80 for number in numbers):  # MQTT 3.1.1 section 3.9.3
            raise BrokerError("the broker refuses the subscription to our inbox")

    def send(self, topic: str, payload: bytes) -> bool:
        """Publish with QoS 0. False if the connection is gone, or the broker does not read."""
        if not self._stream.writable or self._disconnected.done():
            return False
        return self._client.publish(topic, payload).rc == paho.MQTT_ERR_SUCCESS

    async def wait_lost(self) -> str:
        """Return, when the connection has ended, why."""
        await asyncio.wait((self._disconnected,))
        return _why(self._disconnected.exception(), self._stream)

    def fail(self, error: BrokerError) -> None:
        """End the connection at once, for this reason."""
        self._stream.fail(error)

    async def stop(self) -> None:
        """Say DISCONNECT, close, and wait for that; bounded. Also after a failed `start`."""
        try:
            if self._is_connected() and not self._stream.ended:
                self._client.disconnect()
                self._flush()
            self._stream.close()
            async with asyncio.timeout(CLOSE_GRACE):
                await self._stream.wait_closed()
        except TimeoutError:
            pass  # the broker does not take the goodbye
        finally:
            self._stream.abort()
            self._release()

    def _is_connected(self) -> bool:
        return self._connected.done() and self._connected.exception() is None

    def _release(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._stream.on_data = self._stream.on_writable = None
        for future in (self._connected, self._disconnected):
            if future.done():
                future.exception()  # seen

    # what aiomqtt ties to threads and descriptors, on the stream instead

    def _stream_for_paho(self) -> BrokerStream:
        return self._stream

    async def _wait_for(self, fut: Awaitable[T], timeout: float | None) -> T:
        """Not aiomqtt's: `asyncio.wait_for` (3.11) loses a cancellation that comes with the answer."""
        try:
            async with asyncio.timeout(timeout):
                return await fut
        except TimeoutError:
            raise aiomqtt.MqttError("connected, but the broker does not answer") from None

    def _readable(self) -> None:
        stream, client = self._stream, self._client
        try:
            while stream.pending() or stream.ended:
                before = stream.pending()
                if client.loop_read() != paho.MQTT_ERR_SUCCESS:
                    break
                if client._in_packet["remaining_length"] > MAX_PACKET:  # noqa: SLF001
                    raise BrokerError("the broker announces a message longer than any that we use")
                if stream.pending() == before:
                    break
        except Exception as error:  # noqa: BLE001 - whatever a broker's bytes do to the parser ends here
            stream.fail(error)
        if stream.ended:
            self._lost()

    def _lost(self) -> None:
        """The stream has ended; make sure that whoever waits learns it (aiomqtt waits on without CONNACK)."""
        error = aiomqtt.MqttError("the broker closed the connection")
        waiting: list[asyncio.Future[Any]] = [self._connected, self._disconnected]
        waiting += self._pending_subscribes.values()
        for future in waiting:
            if not future.done():
                future.set_exception(error)

    def _flush(self) -> None:
        try:
            if self._client.want_write():
                self._client.loop_write()
        except Exception as error:  # noqa: BLE001 - as above
            self._stream.fail(error)

    def _on_message(self, client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
        self._on_payload(bytes(message.payload))

    def _on_socket_open(self, client: paho.Client, userdata: Any, sock: object) -> None:
        self._timer = self._loop.call_later(KEEPALIVE_CHECK, self._check)

    def _check(self) -> None:
        self._timer = self._loop.call_later(KEEPALIVE_CHECK, self._check)
        self._client.loop_misc()  # sends PINGREQ, or closes when the last one was not answered

    def _on_socket_close(self, client: paho.Client, userdata: Any, sock: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _on_socket_register_write(self, client: paho.Client, userdata: Any, sock: object) -> None:
        # Not at once: paho may be inside one of its own callbacks, holding a lock that writing needs.
        self._loop.call_soon(self._flush)

    def _on_socket_unregister_write(self, client: paho.Client, userdata: Any, sock: object) -> None:
        pass


def _why(error: BaseException | None, stream: BrokerStream) -> str:
    """One short reason for people; the stream knows best."""
    if stream.error is not None:
        return str(stream.error) or type(stream.error).__name__
    if error is None:
        return "the broker closed the connection"
    if isinstance(error, MqttConnectError):
        return f"the broker refused: {error.rc}".lower()
    if isinstance(error, aiomqtt.MqttCodeError):
        return "the connection to the broker was lost"
    return str(error)
