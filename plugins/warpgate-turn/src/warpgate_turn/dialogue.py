"""The conversation with one TURN server over one transport: aioice's protocols, with what they lack.

aioice brings the STUN codec, retransmission, long-term credentials and the framing of both transports.
Added here: CreatePermission and Send indications (its own way in is to bind a channel for every peer and
every packet in a task of its own), REQUESTED-ADDRESS-FAMILY, an end to waiting when the connection is gone
or an ICMP error came, an earlier retransmission than half a second, and a reader for TCP streams that does
not copy what it has not used. Nothing of aioice is changed at run time.
"""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import Callable, Coroutine
from typing import Any, Final

from aioice import stun, turn

from warpgate_core import IP6, Endpoint, Family, NetworkError
from warpgate_turn.credentials import Login
from warpgate_turn.reasons import TurnError, explain, system_words

__all__ = ["Dialogue", "Granted", "open_tcp", "open_udp"]

# s after each transmission of aioice's (0, 500, 1,500 ms...); RFC 8489 section 6.2.1 lets a client be quicker
# than 500 ms, and one lost packet in a hundred must not cost half a second each.
RESEND = 0.150
UNAUTHORIZED = 401  # RFC 8656 section 5
CONNECT_BOUND = 5.0  # s for TCP and TLS; the system would go on for two minutes
_DATA_INDICATION = struct.pack("!H", stun.Method.DATA | stun.Class.INDICATION)
_REQUESTED_FAMILY = 0x0017  # RFC 8656 section 18.4, which aioice does not know
_CHANNEL_HEAD: Final = struct.Struct("!HH")


class Granted:
    """What an Allocate request was answered with.

    Attributes:
        relayed: the relayed transport address.
        mapped: our own address as the server sees it.
        lifetime: seconds until it ends unless refreshed.
    """

    __slots__ = ("lifetime", "mapped", "relayed")

    def __init__(self, response: stun.Message) -> None:
        found = response.attributes
        missing = [n for n in ("XOR-RELAYED-ADDRESS", "XOR-MAPPED-ADDRESS", "LIFETIME") if n not in found]
        if missing:
            raise NetworkError(f"its answer lacks {' and '.join(missing)}")
        self.relayed = Endpoint(*found["XOR-RELAYED-ADDRESS"])
        self.mapped = Endpoint(*found["XOR-MAPPED-ADDRESS"])
        self.lifetime = float(found["LIFETIME"])


class _Allocate(stun.Message):
    """An Allocate request that may ask for an address family."""

    def __init__(self, lifetime: int, family: Family | None) -> None:
        super().__init__(stun.Method.ALLOCATE, stun.Class.REQUEST)
        self._family = family
        self.attributes = {"LIFETIME": lifetime, "REQUESTED-TRANSPORT": turn.UDP_TRANSPORT}

    def __bytes__(self) -> bytes:
        plain = super().__bytes__()
        if self._family is None:
            return plain
        number = stun.IPV6_PROTOCOL if self._family is IP6 else stun.IPV4_PROTOCOL
        extra = struct.pack("!HHB3x", _REQUESTED_FAMILY, 4, number)
        whole = plain[: stun.HEADER_LENGTH] + extra + plain[stun.HEADER_LENGTH :]
        return stun.set_body_length(whole, len(whole) - stun.HEADER_LENGTH)


class Dialogue(turn.TurnClientMixin):
    """Requests, indications and channels. Made by `open_udp` and `open_tcp`.

    Attributes:
        on_data: called with what a peer sent: bytes, and where from.
        on_channel: called with what came over a channel: number, and bytes.
        on_error: called with an ICMP error.
        on_gone: called once the transport is closed, for whatever reason.
        on_first_answer: called with the seconds from the first request to the first answer.
        on_permitting: called with an address when a request is sent that will let its packets in.
        gone: done then.
        loses: whether packets may get lost on the way to the server.
        may_hold: whether the server may have made an allocation for us.
        full: whether the system takes no more; what is sent then is lost.
    """

    loses = False

    def __init__(self, server: Endpoint, login: Login) -> None:
        super().__init__(
            (server.host, server.port),
            login.username,
            login.password,
            lifetime=0,  # ours are in each request
            channel_refresh_time=240,  # never used: channels are bound here
        )
        self.on_data: Callable[[bytes, Endpoint], None] | None = None
        self.on_channel: Callable[[int, bytes], None] | None = None
        self.on_error: Callable[[OSError], None] | None = None
        self.on_gone: Callable[[], None] | None = None
        self.on_first_answer: Callable[[float], None] | None = None
        self.on_permitting: Callable[[str], None] | None = None
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.may_hold = False
        self.full = False
        self._refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked_at: float | None = None
        self._timers: set[asyncio.TimerHandle] = set()

    # -- requests --------------------------------------------------------------------------------

    async def ask(self, request: stun.Message, bound: float) -> stun.Message:
        """Send a request, with credentials if there are any, until it is answered.

        Args:
            request: without credentials; they are added.
            bound: seconds.

        Raises:
            TurnError: the server refuses.
            NetworkError: no answer, or the connection is gone.
        """
        try:
            return await self._wait(self.request_with_retry(request), bound)
        except stun.TransactionFailed as error:
            raise self._explain(error) from None

    async def _wait(
        self, coro: Coroutine[Any, Any, tuple[stun.Message, tuple[str, int]]], bound: float
    ) -> stun.Message:
        if self.gone.done():
            coro.close()
            raise NetworkError("the connection to it is closed")
        task = asyncio.ensure_future(coro)
        waits: set[asyncio.Future[Any]] = {task, self.gone, self._refused}
        try:
            await asyncio.wait(waits, timeout=bound, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()[0]
        except stun.TransactionTimeout:
            raise NetworkError("it does not answer") from None
        finally:
            await _end(task)
        if self.gone.done():
            raise NetworkError("it closed the connection")
        if self._refused.done():
            raise NetworkError("nothing listens there (port unreachable)")
        raise NetworkError(f"no answer within {bound:.3g} s")

    def _explain(self, error: stun.TransactionFailed) -> TurnError:
        code, said = error.response.attributes.get("ERROR-CODE", (500, ""))
        return explain(code, said, has_login=self.username is not None)

    async def challenge(self, lifetime: int, bound: float) -> Granted | None:
        """Ask for an allocation without credentials, which a server answers with realm and nonce.

        No allocation comes of that, so a door may be opened so far before it is known whether it is needed.

        Args:
            lifetime, bound: see `allocate`.

        Returns:
            The allocation, if the server wants no credentials.

        Raises:
            TurnError, NetworkError: see `ask`.
        """
        try:
            granted = Granted(await self._wait(self.request(_Allocate(lifetime, None)), bound))
            self.may_hold = True
            return granted
        except stun.TransactionFailed as error:
            told = error.response.attributes
            known = (
                self.username is not None
                and self.password is not None
                and "REALM" in told
                and "NONCE" in told
            )
            if error.response.error_code != UNAUTHORIZED or not known:
                raise self._explain(error) from None
            self.realm, self.nonce = told["REALM"], told["NONCE"]
            self.integrity_key = turn.make_integrity_key(
                str(self.username), told["REALM"], str(self.password)
            )
            return None

    async def allocate(self, lifetime: int, family: Family | None, bound: float) -> Granted:
        """Make the allocation (RFC 8656 section 7): one round trip after a `challenge`, else two.

        Args:
            lifetime: seconds to ask for.
            family: of the relayed address; None leaves it to the server, which means IPv4.
            bound: seconds.

        Raises:
            TurnError, NetworkError: see `ask`.
        """
        try:
            return Granted(await self.ask(_Allocate(lifetime, family), bound))
        except TurnError:
            self.may_hold = False
            raise

    async def renew(self, lifetime: int, bound: float) -> float:
        """Keep the allocation (RFC 8656 section 8), or with a lifetime of 0 end it.

        Returns:
            Seconds that the server grants.

        Raises:
            TurnError, NetworkError: see `ask`.
        """
        request = stun.Message(stun.Method.REFRESH, stun.Class.REQUEST)
        request.attributes["LIFETIME"] = lifetime
        response = await self.ask(request, bound)
        if not lifetime:
            self.may_hold = False
        return float(response.attributes.get("LIFETIME", lifetime))

    async def permit(self, host: str, bound: float) -> None:
        """Let packets from this address in (RFC 8656 section 10). Raises as `ask` does."""
        request = stun.Message(stun.Method.CREATE_PERMISSION, stun.Class.REQUEST)
        request.attributes["XOR-PEER-ADDRESS"] = (host, 0)
        await self.ask(request, bound)

    async def bind(self, number: int, remote: Endpoint, bound: float) -> None:
        """Bind a channel, or bind it again (RFC 8656 section 12). Raises as `ask` does."""
        request = stun.Message(stun.Method.CHANNEL_BIND, stun.Class.REQUEST)
        request.attributes["CHANNEL-NUMBER"] = number
        request.attributes["XOR-PEER-ADDRESS"] = tuple(remote)
        await self.ask(request, bound)

    def send_stun(self, message: stun.Message, addr: tuple[str, int]) -> None:
        """Send a request (called by aioice, at first and for each of its own retransmissions)."""
        loop = asyncio.get_running_loop()
        if self._asked_at is None:
            self._asked_at = loop.time()
        if message.message_method is stun.Method.ALLOCATE:
            # Without credentials only a server that wants none makes one; then its answer says so.
            self.may_hold = self.may_hold or self.integrity_key is not None or self.username is None
        data = bytes(message)
        self._post(data)
        if self.loses:
            self._resend_later(message.transaction_id, data)
        if "XOR-PEER-ADDRESS" in message.attributes and self.on_permitting is not None:
            self.on_permitting(message.attributes["XOR-PEER-ADDRESS"][0])

    def _resend_later(self, transaction: bytes, data: bytes) -> None:
        def resend() -> None:
            self._timers.discard(timer)
            if transaction in self.transactions:
                self._post(data)

        timer = asyncio.get_running_loop().call_later(RESEND, resend)
        self._timers.add(timer)

    # -- data ------------------------------------------------------------------------------------

    def indicate(self, data: bytes, remote: Endpoint) -> None:
        """Send data to a peer in a Send indication (RFC 8656 section 11.1)."""
        message = stun.Message(stun.Method.SEND, stun.Class.INDICATION)
        message.attributes = {"XOR-PEER-ADDRESS": tuple(remote), "DATA": data}
        self._post(bytes(message))

    def channel(self, number: int, data: bytes) -> None:
        """Send data over a bound channel (RFC 8656 section 12.4)."""
        self._post(_CHANNEL_HEAD.pack(number, len(data)) + data)

    def _post(self, data: bytes) -> None:
        if not self.full and not self.transport.is_closing():
            self._send(data)

    def datagram_received(self, data: bytes | str, addr: tuple[str, int]) -> None:
        """One message of the server's (called by the transport)."""
        assert isinstance(data, bytes)
        if len(data) >= 4 and 0x40 <= data[0] <= 0x4F:  # RFC 8656 section 12
            number, length = _CHANNEL_HEAD.unpack_from(data)
            if len(data) >= 4 + length and self.on_channel is not None:
                self.on_channel(number, data[4 : 4 + length])
            return
        try:
            message = stun.parse_message(data)
            if data[:2] == _DATA_INDICATION:
                self._indicated(message)
                return
        except (ValueError, struct.error, IndexError):
            return  # damaged, or not STUN at all; UDP brings anything
        transaction = self.transactions.get(message.transaction_id)
        if transaction is not None and message.message_class in (stun.Class.RESPONSE, stun.Class.ERROR):
            if self._asked_at is not None and self.on_first_answer is not None:
                report, self.on_first_answer = self.on_first_answer, None
                report(asyncio.get_running_loop().time() - self._asked_at)
            transaction.response_received(message, addr)

    def _indicated(self, message: stun.Message) -> None:
        found = message.attributes
        if "DATA" in found and "XOR-PEER-ADDRESS" in found and self.on_data is not None:
            self.on_data(found["DATA"], Endpoint(*found["XOR-PEER-ADDRESS"]))

    # -- what the transport calls ----------------------------------------------------------------

    def error_received(self, exc: Exception) -> None:
        """An ICMP error (called by the transport)."""
        if isinstance(exc, ConnectionRefusedError):
            if not self._refused.done():
                self._refused.set_result(None)
            if self.on_error is not None:
                self.on_error(exc)

    def forgive(self) -> None:
        """Forget an ICMP error, to see whether another one comes."""
        if self._refused.done():
            self._refused = asyncio.get_running_loop().create_future()

    def pause_writing(self) -> None:
        """The system takes no more: drop, as any congested path does."""
        self.full = True

    def resume_writing(self) -> None:
        """There is room again."""
        self.full = False

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is closed."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        if not self.gone.done():
            self.gone.set_result(None)
        if self.on_gone is not None:
            self.on_gone()

    async def close(self) -> None:
        """Close the transport, and wait until its descriptor is free."""
        abort = getattr(self.transport, "abort", self.transport.close)
        abort()  # nothing is pending, or not worth waiting for; a TLS farewell may take 30 s
        await asyncio.shield(self.gone)


class _Udp(Dialogue, turn.TurnClientUdpProtocol):
    """Over UDP."""

    loses = True


class _Tcp(Dialogue, turn.TurnClientTcpProtocol):
    """Over TCP or TLS."""

    def __init__(self, server: Endpoint, login: Login) -> None:
        super().__init__(server, login)
        self._unread = bytearray()

    def data_received(self, data: bytes) -> None:
        """Part of the stream (called by the transport): messages, padded to four bytes."""
        unread = self._unread
        unread += data
        at, end, peer = 0, len(unread), self.server
        while end - at >= 4:
            _, length = _CHANNEL_HEAD.unpack_from(unread, at)
            first = unread[at]
            is_channel = 0x40 <= first <= 0x4F
            if first >= 0x04 and not (is_channel and self.may_hold):
                self.transport.abort()  # neither STUN nor a channel of ours: some other kind of server
                return
            size = (4 if is_channel else stun.HEADER_LENGTH) + length
            padded = size + stun.padding_length(size)
            if end - at < padded:
                break
            self.datagram_received(bytes(unread[at : at + size]), peer)
            at += padded
        del unread[:at]


async def open_udp(server: Endpoint, login: Login) -> Dialogue:
    """A socket for the dialogue; sends nothing yet.

    Raises:
        NetworkError: no way there.
    """
    loop = asyncio.get_running_loop()
    try:
        _, protocol = await loop.create_datagram_endpoint(
            lambda: _Udp(server, login), remote_addr=(server.host, server.port)
        )
    except OSError as error:
        raise NetworkError(system_words(error)) from error
    return protocol


async def open_tcp(server: Endpoint, login: Login, tls: ssl.SSLContext | None, name: str) -> Dialogue:
    """A connection for the dialogue.

    Args:
        server: where to.
        login: see `Login`.
        tls: None for plain TCP.
        name: what the certificate must be for.

    Raises:
        NetworkError: refused, no answer, or a certificate that is not good.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(CONNECT_BOUND):
            _, protocol = await loop.create_connection(
                lambda: _Tcp(server, login),
                server.host,
                server.port,
                ssl=tls,
                server_hostname=name if tls is not None else None,
            )
    except TimeoutError:
        raise NetworkError(f"no connection within {CONNECT_BOUND:g} s") from None
    except ssl.SSLCertVerificationError as error:
        text = f"its certificate is not good: {error.verify_message} (a private one needs the option ca_file)"
        raise NetworkError(text) from error
    except ssl.SSLError as error:
        raise NetworkError(f"TLS failed: {error.reason or error}") from error
    except OSError as error:
        raise NetworkError(system_words(error)) from error
    return protocol


async def _end(task: asyncio.Future[Any]) -> None:
    """Cancel a request and wait until it is no more; it ends at once."""
    if not task.done():
        task.cancel()
        await asyncio.wait([task])
    elif not task.cancelled():
        task.exception()  # it was looked at
