"""Getting a relay: every way to every server raced, a dead or hostile one costing only its own attempt."""

from __future__ import annotations

import asyncio
import ipaddress
import math
import socket
import ssl
from collections.abc import Callable

from warpgate_core import IP6, ConfigError, Endpoint, Family, NetworkError
from warpgate_turn.credentials import Login
from warpgate_turn.dialogue import Dialogue, Granted, open_tcp, open_udp
from warpgate_turn.doors import GAP, Door, patience, timetable
from warpgate_turn.options import TurnOptions
from warpgate_turn.race import Race
from warpgate_turn.reasons import TurnError
from warpgate_turn.relay import Receive, Relay, delete

__all__ = ["ALLOCATE_BOUND", "Opening"]

ALLOCATE_BOUND = 4.0  # s for the two round trips, seven transmissions of each; aioice alone would take 63
RESOLVE_BOUND = 3.0  # s for a name
UNAUTHORIZED, NO_SUCH_FAMILY = 401, 440  # RFC 8656 section 19


class Opening:
    """One attempt to get a relay from any of the servers.

    Args:
        options: the servers, and what is remembered of them.
        family: of the relayed address that is wanted.
        udp: whether UDP is known to get out.
        receive: for the relay; see `Relay`.
        note: told what comes of each door: the door, a text, and whether that is good news.

    Until `go` is called the doors are only knocked at: the server is found, and gives its nonce, but makes no
    allocation. Of several doors that are ready one after the other allocates, so that what is raced is who
    answers first and not who leaves more behind.
    """

    def __init__(
        self,
        options: TurnOptions,
        family: Family,
        *,
        udp: bool,
        receive: Receive,
        note: Callable[[Door, str, bool], None],
    ) -> None:
        self._options = options
        self._family = family
        self._receive = receive
        self._note = note
        self._open = asyncio.Event()
        self._turn = asyncio.Lock()
        memory = options.memory
        last = memory.last(asyncio.get_running_loop().time())
        starts = timetable(options.doors, udp=udp, last=last, round_trips=memory.round_trips)
        self._race: Race[Door, Relay] = Race(starts, self._try, Relay.let_go)

    def go(self) -> None:
        """A relay is wanted."""
        self._open.set()

    async def run(self) -> Relay:
        """Race the doors. The relay is the caller's; `close` must be called in any case.

        Raises:
            NetworkError: no server gave one; the text names each door and its reason.
        """
        relay = await self._race.first()
        if relay is None:
            reasons = (f"{door}: {error}" for door, error in self._race.failures.items())
            raise NetworkError("; ".join(reasons) or "no TURN server is configured")
        return relay

    async def close(self) -> None:
        """Stop who still tries, and give back what came too late."""
        await self._race.close()

    async def _try(self, door: Door) -> Relay:
        loop = asyncio.get_running_loop()
        began = loop.time()
        memory, ca_file = self._options.memory, self._options.ca_file
        try:
            login = await memory.login(door.server, ca_file)
            tls = await memory.tls(ca_file) if door.via == "tls" else None
            relay = await self._try_addresses(door, login, tls)
        except (NetworkError, ConfigError) as error:
            if isinstance(error, TurnError) and error.code == UNAUTHORIZED:
                memory.refused(door.server)
            self._note(door, str(error), False)
            raise
        memory.served(door, loop.time())
        self._note(door, f"{relay.local} in {(loop.time() - began) * 1000:.0f} ms", True)
        return relay

    async def _try_addresses(self, door: Door, login: Login, tls: ssl.SSLContext | None) -> Relay:
        """By one address of the server per family, a little after each other (RFC 8305)."""
        addresses = await _resolve(door)
        race: Race[Endpoint, Relay] = Race(
            [(GAP * number, address) for number, address in enumerate(addresses)],
            lambda address: self._approach(door, address, login, tls, race),
            Relay.let_go,
        )
        try:
            relay = await race.first()
        finally:
            await race.close()
        if relay is None:
            raise list(race.failures.values())[-1]
        return relay

    async def _approach(
        self,
        door: Door,
        server: Endpoint,
        login: Login,
        tls: ssl.SSLContext | None,
        addresses: Race[Endpoint, Relay],
    ) -> Relay:
        if door.via == "udp":
            dialogue = await open_udp(server, login)
        else:
            dialogue = await open_tcp(server, login, tls, door.server.host)

        def answered(round_trip: float) -> None:
            self._options.memory.answered(door, round_trip)
            # Whoever waits here to be wanted does so for as long as it takes; there is no need for others.
            pause = patience(round_trip) if self._open.is_set() else math.inf
            self._race.hold(pause)
            addresses.hold(pause)

        dialogue.on_first_answer = answered
        try:
            granted = await self._allocate(dialogue)
        except BaseException:
            await delete(dialogue)
            raise
        options = self._options
        return Relay(
            dialogue, granted, door, self._receive, refresh=options.refresh, lifetime=options.lifetime
        )

    async def _allocate(self, dialogue: Dialogue) -> Granted:
        """IPv6 is asked for and IPv4 is what servers give unasked, so that old ones are not confused."""
        wanted = IP6 if self._family is IP6 else None
        lifetime = self._options.lifetime
        granted = await dialogue.challenge(lifetime, ALLOCATE_BOUND)
        if granted is not None:
            return granted
        await self._open.wait()
        is_mine = await self._take_turn()
        try:
            try:
                return await dialogue.allocate(lifetime, wanted, ALLOCATE_BOUND)
            except TurnError as error:
                if wanted is None or error.code != NO_SUCH_FAMILY:
                    raise
                return await dialogue.allocate(lifetime, None, ALLOCATE_BOUND)
        except BaseException:
            if is_mine:  # else it stays taken: the race is won
                self._turn.release()
            raise

    async def _take_turn(self) -> bool:
        """Let who came first finish; but if that takes long, go on beside it."""
        try:
            async with asyncio.timeout(GAP):
                return await self._turn.acquire()
        except TimeoutError:
            return False


async def _resolve(door: Door) -> list[Endpoint]:
    """Where the server is: the address itself, or the first of each family that its name has.

    Raises:
        NetworkError: the name is not known, or the resolver does not answer.
    """
    host, port = door.server.host, door.server.port
    try:
        return [Endpoint(str(ipaddress.ip_address(host)), port)]
    except ValueError:
        pass  # a name
    try:
        async with asyncio.timeout(RESOLVE_BOUND):
            infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except TimeoutError:
        raise NetworkError(f"the name {host} was not resolved within {RESOLVE_BOUND:g} s") from None
    except OSError as error:
        raise NetworkError(f"the name {host} is not known: {error.strerror or error}") from error
    first: dict[Family, Endpoint] = {}
    for *_, address in infos:
        endpoint = Endpoint.of(address)
        first.setdefault(endpoint.family, endpoint)
    return list(first.values())
