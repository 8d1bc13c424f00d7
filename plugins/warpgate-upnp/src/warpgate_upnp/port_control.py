"""PCP and NAT-PMP with the default gateway: the asyncio side of `pcp` and `nat_pmp`."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import ClassVar, Self

from warpgate_core import IP4, Endpoint, NetworkError, ProtocolError
from warpgate_upnp import nat_pmp, pcp
from warpgate_upnp.client import Asker, Client
from warpgate_upnp.datagram import Conversation
from warpgate_upnp.errors import RefusalError
from warpgate_upnp.mapping import Lease, Wish

__all__ = ["NatPmpClient", "PcpClient"]


class PcpClient(Client):
    """A router that speaks PCP. Made by `find`."""

    protocol: ClassVar[str] = "PCP"

    def __init__(self, asker: Asker, talk: Conversation, on_forgotten: Callable[[], None]) -> None:
        self._asker = asker
        self._talk = talk
        self._on_forgotten = on_forgotten

    @classmethod
    async def find(cls, asker: Asker, on_forgotten: Callable[[], None], port: int = pcp.PORT) -> Self:
        """Ask the gateway for the time.

        Args:
            asker: who asks.
            on_forgotten: called when an answer shows that the router has lost its state.
            port: of the server.

        Raises:
            NetworkError: it does not speak PCP.
        """
        own = asker.site.internal.host
        question = pcp.ask_announce(own)
        talk = await Conversation.open(own, Endpoint(asker.site.gateway, port))
        try:
            answer = await talk.ask(question, _announcement, asker.timing)
        except BaseException:
            await talk.close()
            raise
        asker.clock.pcp_answer(answer.epoch)
        return cls(asker, talk, on_forgotten)

    async def lease(self, wish: Wish, held: Lease | None) -> Lease:
        """See `Client`."""
        answer = await self._map(wish, held, self._asker.lease)
        if not answer.lifetime or not answer.external_port:
            raise ProtocolError("a PCP mapping without lifetime or port")
        external = _endpoint(answer.external_host, answer.external_port, wish)
        return Lease(self.protocol, external, float(min(answer.lifetime, pcp.MAX_LIFETIME)))

    async def release(self, wish: Wish, held: Lease) -> None:
        """See `Client`."""
        await self._map(wish, held, 0)

    async def close(self) -> None:
        """See `Client`."""
        await self._talk.close()

    async def _map(self, wish: Wish, held: Lease | None, lifetime: int) -> pcp.Answer:
        nonce = self._asker.nonce(wish)
        external = None if held is None else (held.external.host, held.external.port)
        port = wish.internal.port
        own = wish.internal.host
        question = pcp.ask_map(own, nonce, wish.transport, port, lifetime, external)

        def understand(data: bytes) -> pcp.Answer | None:
            answer = pcp.parse(data)
            mine = (nonce, wish.transport, port)
            if (answer.nonce, answer.transport, answer.internal_port) != mine:
                return None
            if answer.result != pcp.Result.SUCCESS:
                raise RefusalError(
                    f"the router refused a port mapping by PCP: {_saying(pcp.Result, answer.result)}",
                    code=answer.result,
                    retry_after=float(answer.lifetime),
                )
            return answer

        answer = await self._talk.ask(question, understand, self._asker.timing)
        if not self._asker.clock.pcp_answer(answer.epoch):
            self._on_forgotten()
        return answer


def _announcement(data: bytes) -> pcp.Answer | None:
    answer = pcp.parse(data)
    if answer.result == pcp.Result.UNSUPP_VERSION:
        raise RefusalError(f"the router speaks no PCP of version 2 but version {answer.version}")
    if answer.is_map:
        return None
    if answer.result not in (pcp.Result.SUCCESS, pcp.Result.UNSUPP_OPCODE):
        raise RefusalError(
            f"the router refused PCP: {_saying(pcp.Result, answer.result)}", code=answer.result
        )
    return answer


class NatPmpClient(Client):
    """A router that speaks NAT-PMP. Made by `find`."""

    protocol: ClassVar[str] = "NAT-PMP"

    def __init__(self, asker: Asker, talk: Conversation, on_forgotten: Callable[[], None], host: str) -> None:
        self._asker = asker
        self._talk = talk
        self._on_forgotten = on_forgotten
        self._host = host

    @classmethod
    async def find(cls, asker: Asker, on_forgotten: Callable[[], None], port: int = nat_pmp.PORT) -> Self:
        """Ask the gateway for its external address. Arguments and errors as of `PcpClient.find`."""
        if asker.site.internal.family is not IP4:
            raise NetworkError("NAT-PMP is for IPv4 only")
        talk = await Conversation.open(asker.site.internal.host, Endpoint(asker.site.gateway, port))
        try:
            client = cls(asker, talk, on_forgotten, "")
            await client._learn_address()
        except BaseException:
            await talk.close()
            raise
        return client

    async def lease(self, wish: Wish, held: Lease | None) -> Lease:
        """See `Client`. The external address is asked for each time: a mapping's answer does not hold it."""
        if held is not None:
            await self._learn_address()
        port = wish.internal.port
        wished = held.external.port if held is not None else port
        answer = await self._map(wish, wished, self._asker.lease)
        if not answer.lifetime or not answer.external_port:
            raise ProtocolError("a NAT-PMP mapping without lifetime or port")
        life = float(min(answer.lifetime, pcp.MAX_LIFETIME))
        return Lease(self.protocol, _endpoint(self._host, answer.external_port, wish), life)

    async def release(self, wish: Wish, held: Lease) -> None:
        """See `Client`."""
        await self._map(wish, 0, 0)

    async def close(self) -> None:
        """See `Client`."""
        await self._talk.close()

    async def _learn_address(self) -> None:
        answer = await self._talk.ask(nat_pmp.ask_address(), _address, self._asker.timing)
        if not self._asker.clock.nat_pmp_answer(answer.epoch, answer.host):
            self._on_forgotten()
        self._host = answer.host

    async def _map(self, wish: Wish, external_port: int, lifetime: int) -> nat_pmp.TransportMapping:
        question = nat_pmp.ask_mapping(wish.transport, wish.internal.port, external_port, lifetime)

        def understand(data: bytes) -> nat_pmp.TransportMapping | None:
            answer = nat_pmp.parse(data)
            if not isinstance(answer, nat_pmp.TransportMapping) or answer.transport != wish.transport:
                return None
            if answer.result != nat_pmp.Result.SUCCESS:
                raise RefusalError(
                    f"the router refused a port mapping by NAT-PMP: {_saying(nat_pmp.Result, answer.result)}",
                    code=answer.result,
                )
            return answer if answer.internal_port == wish.internal.port else None

        answer = await self._talk.ask(question, understand, self._asker.timing)
        if not self._asker.clock.nat_pmp_answer(answer.epoch):
            self._on_forgotten()
        return answer


def _address(data: bytes) -> nat_pmp.PublicAddress | None:
    answer = nat_pmp.parse(data)
    if not isinstance(answer, nat_pmp.PublicAddress):
        return None
    if answer.result != nat_pmp.Result.SUCCESS:
        text = f"the router refused NAT-PMP: {_saying(nat_pmp.Result, answer.result)}"
        raise RefusalError(text, code=answer.result)
    return answer


def _endpoint(host: str, port: int, wish: Wish) -> Endpoint:
    """The external endpoint, of the same family as the internal one."""
    ip = ipaddress.ip_address(host)
    if ip.version != int(wish.internal.family) or ip.is_multicast:
        raise ProtocolError(f"the router maps {wish.internal} to {host}")
    return Endpoint(str(ip), port)


def _saying(results: type[nat_pmp.Result | pcp.Result], number: int) -> str:
    try:
        known = results(number)
    except ValueError:
        return f"result {number}"
    return f"{known.saying} ({known.name})"
