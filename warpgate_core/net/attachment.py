"""One address of one network card: its UDP socket, its listener, and what is known of the way out.

It keeps itself up to date in one task, which goes round like this: ask all STUN servers at once (the first
answer is published at once); find out what the NAT does; then, only if there is a NAT, ask one server now
and then, which holds the mapping open and shows when it has changed; and from the start again when it
has, when nobody answers, or when the network changed under us.

Rejected: binding indications for keepalive (RFC 8489 section 6.1; they hold the mapping but nobody would
notice that it was lost), and a timer per server (one answer holds an endpoint-independent mapping open).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace

from warpgate_core.endpoint import Endpoint
from warpgate_core.errors import NetworkError, ProtocolError
from warpgate_core.nat import Mapping, NatProfile
from warpgate_core.net.edge import DatagramSocket, LocalInterface
from warpgate_core.net.interfaces import LocalAddress
from warpgate_core.net.nat_classify import Diagnosis, Observations, Seen, diagnose
from warpgate_core.net.nat_discovery import discover, fresh_client
from warpgate_core.net.ports import PortPair, leave_by
from warpgate_core.net.stream import StreamLink
from warpgate_core.net.stun_client import Binding, Schedule, StunClient
from warpgate_core.net.stun_server import StunServer, resolve
from warpgate_core.net.tcp import Listener
from warpgate_core.net.udp import UdpSocket
from warpgate_core.tasks import TaskSet

__all__ = ["KEEPALIVE", "Attachment", "AttachmentHooks"]

# s. RFC 4787 REQ-5 wants two minutes, but routers forget after 30 s and Linux' conntrack by default does
# too (nf_conntrack_udp_timeout); RFC 8445 section 11 asks for 15 s or more
KEEPALIVE = 22.0
LATE = 1.0  # s that further servers may take after the first answer; what comes later is not waited for
FIRST_RETRY, MAX_RETRY = 1.0, 60.0  # s between rounds while no server answers, doubling
_CHECK = Schedule(tries=4, last=4.0)  # of one server in keepalive; then the next one is asked


@dataclass(frozen=True, slots=True)
class AttachmentHooks:
    """What an attachment tells its edge.

    Args:
        on_stream: an accepted TCP connection.
        on_datagram: a datagram for nobody in particular.
        on_learnt: something about the way out has changed.
    """

    on_stream: Callable[[StreamLink], None]
    on_datagram: Callable[[bytes, Endpoint, DatagramSocket], None]
    on_learnt: Callable[[], None]


class Attachment:
    """One address in use.

    Args:
        address: as it was found.
        nic: number of its card in the node address.
        servers: STUN servers; without any nothing is learnt.
        keepalive: seconds between checks of the mapping.
        hooks: see `AttachmentHooks`.

    Attributes:
        diagnosis: what is known of the NAT.
        settled: something was learnt, or it is clear that nothing will be for now.
        profiled: the NAT was looked into at least once, with whatever success.
        tcp_announced: TCP endpoint that a port mapping gave us.
        tcp_seen: how a STUN server last saw a connection from our listener's port.
    """

    def __init__(
        self,
        address: LocalAddress,
        nic: int,
        servers: Sequence[StunServer],
        keepalive: float,
        hooks: AttachmentHooks,
    ) -> None:
        self.address = address
        self.nic = nic
        self.diagnosis = Diagnosis(NatProfile())
        self.settled = not servers
        self.profiled = not servers
        self.tcp_announced: Endpoint | None = None
        self.tcp_seen: Endpoint | None = None
        self.socket = UdpSocket(address.name, hooks.on_datagram)
        self.leave_by_card = 0
        self._servers = tuple(servers)
        self._keepalive = keepalive
        self._hooks = hooks
        self._listener = Listener(hooks.on_stream)
        self._again = asyncio.Event()
        self._tasks = TaskSet(f"attachment {address.host}")
        self._pair: PortPair | None = None
        self._stun = StunClient(Endpoint(address.host, 0), self.socket.send)

    @property
    def interface(self) -> LocalInterface:
        """What the rest of the library sees."""
        external = self.diagnosis.external
        open_tcp = external if self.diagnosis.profile.mapping is Mapping.NONE else None
        return LocalInterface(
            nic=self.nic,
            name=self.address.name,
            internal=self.socket.local,
            external=external,
            nat=self.diagnosis.profile,
            tcp_external=self.tcp_announced or open_tcp,
            prefix=self.address.prefix,
            tcp_seen=self.tcp_seen,
        )

    async def open(self, pair: PortPair, leave_by_card: int = 0) -> None:
        """Take over bound sockets and begin to learn. They are closed here on failure.

        Raises:
            OSError: the port cannot be listened on.
        """
        self._pair = pair
        try:
            self.pin(leave_by_card)
            self._stun = StunClient(pair.endpoint, self.socket.send)
            self.socket.on_stun = self._stun.receive
            await self.socket.open(pair.udp, pair.endpoint)
            await self._listener.open(pair.tcp)
        except BaseException:
            pair.tcp.close()
            self.socket.close()
            pair.udp.close()
            raise
        if self._servers:
            self._tasks.start(self._live(), "learn")

    def pin(self, leave_by_card: int) -> None:
        """Send by this card from now on, see `ports.leave_by`."""
        if self._pair is not None and leave_by_card != self.leave_by_card:
            leave_by(self._pair.udp, self.address.family, leave_by_card)
            self.leave_by_card = leave_by_card

    def look_again(self) -> None:
        """The network has changed: ask all servers anew."""
        self._again.set()

    def shut(self) -> None:
        """Close the sockets at once; `close` does the rest."""
        self._listener.close()
        self._stun.close()
        self.socket.close()

    async def close(self) -> None:
        """Close sockets and end the task. Harmless twice."""
        self.shut()
        await self._tasks.close()
        await self._listener.wait_closed()
        await self.socket.wait_closed()

    # -- learning ----------------------------------------------------------------------------

    async def _live(self) -> None:
        pause = FIRST_RETRY
        while True:
            was_change = self._again.is_set()
            self._again.clear()
            self.tcp_seen = None
            answers = await self._ask_all()
            if answers:
                pause = FIRST_RETRY
                await self._profile(answers)
                await self._hold_mapping(answers)
                continue
            # After a change an old answer is a wrong one; without one, only the servers are away.
            kept = Diagnosis(NatProfile()) if was_change else self.diagnosis
            self._learn(replace(kept, notes=(_SILENT,)), is_profile=True)
            pause = FIRST_RETRY if await self._changed_within(pause) else min(MAX_RETRY, 2 * pause)

    async def _ask_all(self) -> list[Binding]:
        """Round 1: every server at once; answers in the order of the configuration."""
        tasks = [asyncio.create_task(self._ask(server)) for server in self._servers]
        try:
            deadline = None
            waiting = set(tasks)
            while waiting:
                timeout = None if deadline is None else deadline - asyncio.get_running_loop().time()
                done, waiting = await asyncio.wait(
                    waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    break
                for answer in filter(None, (task.result() for task in done)):
                    if deadline is None:
                        deadline = asyncio.get_running_loop().time() + LATE
                        self._first_answer(answer)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        outcomes = (task.result() for task in tasks if not task.cancelled())
        return [outcome for outcome in outcomes if outcome is not None]

    async def _ask(self, server: StunServer) -> Binding | None:
        try:
            return await self._stun.binding(await resolve(server, self.address.family))
        except (NetworkError, ProtocolError):
            return None  # the others are asked at the same time; if nobody answers that is reported

    def _first_answer(self, answer: Binding) -> None:
        """Publish the endpoint at once; what is known of the NAT stays until it is known better."""
        if self.diagnosis.external == answer.mapped:
            self._learn(self.diagnosis)
            return
        self._learn(diagnose(Observations((Seen(answer.local, answer.server, answer.mapped),))))

    async def _profile(self, answers: list[Binding]) -> None:
        try:
            diagnosis = await discover(self._stun, answers, self._fresh)
        except OSError as error:
            plain = diagnose(Observations(tuple(Seen(a.local, a.server, a.mapped) for a in answers)))
            note = f"the NAT was not looked into: {error}"
            diagnosis = replace(plain, notes=(*plain.notes, note))
        self._learn(diagnosis, is_profile=True)

    def _fresh(self) -> AbstractAsyncContextManager[StunClient]:
        return fresh_client(self.address.host, self.address.name, self.leave_by_card)

    async def _hold_mapping(self, answers: list[Binding]) -> None:
        """Return when the mapping has changed, nobody answers any more, or the network changed."""
        if self.diagnosis.profile.mapping is Mapping.NONE:
            await self._again.wait()
            return
        expected = {
            answer.server: answer.mapped
            for answer in sorted(answers, key=lambda answer: answer.rtt)
            if answer.server not in self.diagnosis.doubtful
        } or {answers[0].server: answers[0].mapped}
        while not await self._changed_within(self._keepalive):
            if not await self._check(expected):
                return

    async def _check(self, expected: dict[Endpoint, Endpoint]) -> bool:
        """Whether the first server that answers still sees what it saw before."""
        for server, mapped in expected.items():
            try:
                answer = await self._stun.binding(server, schedule=_CHECK)
            except (NetworkError, ProtocolError):
                continue
            return answer.mapped == mapped
        return False

    async def _changed_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._again.wait()
        except TimeoutError:
            return False
        return True

    def _learn(self, diagnosis: Diagnosis, *, is_profile: bool = False) -> None:
        before = (self.diagnosis, self.settled, self.profiled)
        self.diagnosis = diagnosis
        self.settled = self.settled or diagnosis.external is not None or is_profile
        self.profiled = self.profiled or is_profile
        if before != (self.diagnosis, self.settled, self.profiled):
            self._hooks.on_learnt()


_SILENT = "no STUN server answers at present"
