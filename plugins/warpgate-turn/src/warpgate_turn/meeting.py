"""One attempt at one end: makes a relay if it is this end's turn, and meets the peer at either's relay.

What is decided is in `decide`; here it is carried out: cards come and go, a relay is opened, permitted,
announced and watched, checks run. Everything happens in `react`, which looks at both cards and starts what is
due; it may be called any number of times. Whatever is held is released by `close`, except a relay that a
pipe has taken over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from warpgate_core import (
    Attempt,
    DatagramSocket,
    Endpoint,
    NetworkError,
    Phase,
    RemoteError,
    StrategyError,
    WarpgateError,
)
from warpgate_turn.card import MAX_REASON, Card, State
from warpgate_turn.decide import allocates_at_once, grants, is_mapped, needs_own_relay, pairs, wanted_family
from warpgate_turn.doors import Door
from warpgate_turn.opening import Opening
from warpgate_turn.options import TurnOptions
from warpgate_turn.relay import Relay

__all__ = ["Meeting"]

HEDGE = 0.5  # s (and two signalling round trips) without a path, until an end that stood by makes a relay too
GIVE_UP = 6.0  # s after both ends have said all there is: a check takes 5, and the news of it a little
MAX_CARDS = 8  # of a peer in one session; two or three are what it takes
MAX_CALLERS = 8  # endpoints that are met at our relay; a peer has a socket per interface
FRAMES = range(0xE0, 0xF0)  # first bytes of the core's frames (docs/protocol-session.md)


class Meeting:
    """See the module's text.

    Args:
        attempt: the session's view.
        options: servers and memory.
    """

    def __init__(self, attempt: Attempt, options: TurnOptions) -> None:
        self._attempt = attempt
        self._options = options
        self._mapped = is_mapped(attempt.local)
        self._state = State.STANDBY if options.doors else State.NONE
        self._reason = "no TURN server is configured here"
        self._relay: Relay | None = None
        self._told = Card(State.NONE)
        self._peer: Card | None = None
        self._opening: Opening | None = None
        self._opened = asyncio.Event()
        self._tried: set[tuple[int, Endpoint]] = set()
        self._checking = 0
        self._check_errors: dict[str, None] = {}
        self._is_proven = False
        self._doubts_udp = not self._mapped
        self._running = False
        self._hedge: asyncio.TimerHandle | None = None
        self._give_up: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._end.add_done_callback(lambda end: end.cancelled() or end.exception())

    # -- the strategy's three steps --------------------------------------------------------------

    async def contribute(self, peer: bytes | None, soon: float) -> bytes:
        """Begin, and say what this end has.

        Args:
            peer: the initiator's section, if it is known already.
            soon: seconds that may be spent waiting, if a server is known to be so near.

        Raises:
            ProtocolError: the peer's section is rubbish.
        """
        if peer is not None:
            self._peer = Card.decode(peer)
        has_servers = bool(self._options.doors)
        if allocates_at_once(
            self._attempt.role, has_servers=has_servers, mapped=self._mapped, peer=self._peer
        ):
            self._open()
            if 2 * self._options.memory.nearest < soon:  # else everybody's offer would wait in vain
                with suppress(TimeoutError):  # the relay follows by message
                    async with asyncio.timeout(soon):
                        await self._opened.wait()
        elif has_servers:
            self._prepare()
        self._told = self._card()
        return self._told.encode()

    async def run(self) -> None:
        """Until cancelled, or until nothing can come of it any more.

        Raises:
            StrategyError: says why.
        """
        self._running = True
        self._start(self._listen(), "listen")
        self._start(self._watch_peer(), "watch")
        self._start(self._tell(), "tell")
        self._react()
        await self._end

    async def close(self) -> None:
        """Release everything but what a pipe has taken over. Harmless twice."""
        self._running = False
        for timer in (self._hedge, self._give_up):
            if timer is not None:
                timer.cancel()
        for task in self._tasks:
            task.cancel()
        closing = [self._opening.close()] if self._opening is not None else []
        closing += [self._relay.let_go()] if self._relay is not None else []
        await asyncio.gather(*closing)
        while self._tasks:
            await asyncio.wait(self._tasks)

    # -- the peer --------------------------------------------------------------------------------

    async def _listen(self) -> None:
        if self._peer is None:
            self._take(await self._attempt.peer_section())
        for _ in range(MAX_CARDS):
            self._take(await self._attempt.receive())

    def _take(self, data: bytes) -> None:
        self._peer = Card.decode(data)
        self._react()

    async def _watch_peer(self) -> None:
        """The peer's half may give up, and says why (only the initiator is told)."""
        await self._attempt.settled()

    def _card(self) -> Card:
        relay = self._relay
        if relay is not None:
            return Card(self._state, (relay.local,), (relay.mapped,))
        is_failure = self._state is State.NONE and self._options.doors
        printable = "".join(char for char in self._reason if char.isascii() and char.isprintable())
        return Card(self._state, reason=printable[:MAX_REASON] if is_failure else "")

    async def _tell(self) -> None:
        """Send the card if it has changed, unless what would be said is that all is lost."""
        card = self._card()
        if self._running and card != self._told and not self._is_hopeless:
            self._told = card
            await self._attempt.send(card.encode())

    # -- what is due -----------------------------------------------------------------------------

    def _react(self) -> None:
        if not self._running or self._end.done():
            return
        peer, attempt = self._peer, self._attempt
        if self._relay is not None:
            self._relay.permit(grants(self._relay.local.family, attempt.peer, peer))
        if peer is None:
            return
        if self._state is State.STANDBY:
            if needs_own_relay(peer, has_servers=True):
                self._open()
            elif self._hedge is None:
                wait = HEDGE + 2 * (attempt.round_trip or 0.0)
                self._hedge = asyncio.get_running_loop().call_later(wait, self._open_as_well)
        for sock, remote in pairs(attempt.sockets, self._relay, peer, doubts_udp=self._doubts_udp):
            self._check(sock, remote)
        self._look_for_hope()

    def _open_as_well(self) -> None:
        """Nothing came about: a firewall may let UDP out to some ports only."""
        if self._state is State.STANDBY and not self._is_proven:
            self._doubts_udp = True
            self._open()

    @property
    def _is_hopeless(self) -> bool:
        """Whether no relay is left that anybody could use."""
        if self._is_proven or self._state in (State.STANDBY, State.COMING, State.READY) or self._peer is None:
            return False
        return self._peer.state is State.NONE or (
            self._peer.state is State.READY and bool(self._tried) and not self._checking
        )

    def _look_for_hope(self) -> None:
        if self._is_hopeless:
            self._fail()
        elif self._give_up is None and self._peer is not None and self._is_final:
            self._give_up = asyncio.get_running_loop().call_later(GIVE_UP, self._time_is_up)

    @property
    def _is_final(self) -> bool:
        """Whether both ends have said all there is."""
        final = (State.NONE, State.READY)
        return self._state in final and self._peer is not None and self._peer.state in final

    def _time_is_up(self) -> None:
        if not self._is_proven:
            self._fail()

    def _fail(self, error: Exception | None = None) -> None:
        if not self._end.done():
            failure = StrategyError(self._attempt.name, "meeting at a relay", self._why())
            self._end.set_exception(error or failure)

    def _why(self) -> str:
        peer = self._peer or Card(State.NONE)
        if peer.state is State.NONE and not peer.reason and not self._options.doors:
            return "no TURN server is configured at either end; name one in NodeConfig(turn=...)"
        said = list(self._check_errors)
        if self._state is State.READY:
            said.append(f"the peer did not come to the relay {self._card().relays[0]} of this end")
        elif not self._options.doors and not self._mapped:
            said.append("UDP does not seem to get out of this network: name a TURN server at this end too")
        else:
            said.append(self._reason)
        if peer.state is State.NONE:
            said.append(f"the peer: {peer.reason or 'no TURN server is configured there'}")
        return "; ".join(said)

    # -- our relay -------------------------------------------------------------------------------

    def _open(self) -> None:
        """Make a relay: this end's turn has come."""
        self._state = State.COMING
        opening = self._opening or self._prepare()
        opening.go()
        self._attempt.note("allocate", f"{len(self._options.doors)} ways to try", Phase.STARTED)

    def _prepare(self) -> Opening:
        """Find a server that answers, which costs it nothing."""
        opening = self._opening = Opening(
            self._options,
            wanted_family(self._attempt.peer),
            udp=self._mapped,
            receive=self._receive,
            note=self._note_door,
        )
        self._start(self._obtain(opening), "obtain a relay")
        return opening

    async def _obtain(self, opening: Opening) -> None:
        try:
            relay = await opening.run()
        except NetworkError as error:
            self._state, self._reason = State.NONE, str(error)
        else:
            self._state, self._relay = State.READY, relay
            relay.on_refusal = self._note_refusal
            relay.on_lost(self._note_loss)
            relay.permit(grants(relay.local.family, self._attempt.peer, self._peer))
        self._opened.set()
        self._react()
        await asyncio.gather(opening.close(), self._tell())

    def _receive(self, data: bytes, remote: Endpoint, sock: DatagramSocket) -> None:
        """What came to our relay: the core's; and whoever speaks our language is met there."""
        self._attempt.accept_datagram(data, remote, sock)
        if self._running and data and data[0] in FRAMES and len(self._tried) < MAX_CALLERS:
            self._check(sock, remote)

    def _note_door(self, door: Door, text: str, good: bool) -> None:
        self._attempt.note("allocate", f"{door}: {text}", Phase.COMPLETE if good else Phase.FAILED)

    def _note_refusal(self, host: str, error: NetworkError) -> None:
        self._attempt.note("permission", f"{host}: {error}", Phase.FAILED)

    def _note_loss(self, error: NetworkError) -> None:
        if self._running:
            self._attempt.note("relay", str(error), Phase.FAILED)
            self._state, self._reason, self._relay = State.NONE, str(error), None
            self._start(self._tell(), "tell")
            self._react()

    # -- checks ----------------------------------------------------------------------------------

    def _check(self, sock: DatagramSocket, remote: Endpoint) -> None:
        key = (id(sock), remote)
        if key not in self._tried:
            self._tried.add(key)
            self._checking += 1
            self._start(self._check_one(sock, remote), f"check {remote}")

    async def _check_one(self, sock: DatagramSocket, remote: Endpoint) -> None:
        try:
            await self._attempt.check(remote, sock=sock, kind="relay")
        except (NetworkError, RemoteError) as error:
            text = error.detail if isinstance(error, StrategyError) else str(error)
            self._check_errors[text] = None
        else:
            self._is_proven = True
        finally:
            self._checking -= 1
        self._react()

    # -- tasks -----------------------------------------------------------------------------------

    def _start(self, coro: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(coro, name=f"{self._attempt.name}: {name}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or task.exception() is None:
            return
        error = task.exception()
        assert error is not None
        if isinstance(error, WarpgateError) and self._is_proven:
            return  # the peer's half may end when it has done its part
        self._fail(error if isinstance(error, Exception) else None)
