"""aioice between the same homes, for comparison: two of its agents, and signalling as slow as a broker.

ICE brings no signalling, so the descriptions are carried here, with the broker's delay: the callee has the
caller's after S, the caller the callee's after 2S. As with our nodes, what is known before the call is not
counted: candidates are gathered already. Behind UDP blocks its TURN client is told to use TCP to port 443,
elsewhere UDP; it takes one server, and cannot find out by itself.

Run as a program it is one agent, told by its standard input what to do.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from typing import IO, Any

import aioice

from tests.lab import Host, Nat
from tests.lab.e2e.agent import ROOT
from tests.lab.matrix import HTTPS, SIDES, STUN_PORT, Matrix, Outcome
from tests.lab.turn.coturn import PASSWORD, USER

__all__ = ["attempt", "main"]

TIMEOUT = 6.0  # s; what it joins, it joins within one, and its own giving up takes half a minute
PATIENCE = 60.0  # s for everything; a STUN server that does not answer costs it 5
LAST_WORDS = 10.0  # s; closing an allocation takes a round trip


def attempt(matrix: Matrix, caller: Nat, callee: Nat, *, relay: bool, delay: float) -> Outcome:
    """One pair; `delay` is that of a line, of which a broker's way has two."""
    told: dict[str, Any] = {}
    with ExitStack() as stack:
        ends = [
            _start(
                stack, matrix.host(nat, side), _wishes(matrix, nat, relay) | {"controlling": side == SIDES[0]}
            )
            for nat, side in zip((caller, callee), SIDES, strict=True)
        ]
        try:
            mine, theirs = (json.loads(_line(end)) for end in ends)
            began = time.perf_counter()
            late = threading.Timer(2 * delay, _tell, (ends[1], mine))
            late.start()
            threading.Event().wait(4 * delay)  # the answer's way back: no event could tell the time
            _tell(ends[0], theirs)
            told = json.loads(_line(ends[0]))
            there = json.loads(_line(ends[1]))
            late.join()
            if "at" in told:
                told["seconds"] = told.pop("at") - began
            told["messages"] = bool(told.get("messages") and there.get("messages"))
        except (ValueError, BrokenPipeError) as error:
            told = {"error": f"{type(error).__name__}: {error}"}
    return Outcome(caller.slug, callee.slug, relay, **{"strategy": "aioice", "transport": "udp"} | told)


def _wishes(matrix: Matrix, nat: Nat, relay: bool) -> dict[str, Any]:
    udp = nat.behaviour.udp
    turn = [matrix.turn.address, STUN_PORT if udp else HTTPS] if relay else None
    stun = list(matrix.stun.endpoint()) if udp else None
    return {"stun": stun, "turn": turn, "transport": "udp" if udp else "tcp"}


def _start(stack: ExitStack, host: Host, wishes: dict[str, Any]) -> subprocess.Popen[str]:
    argv = (sys.executable, "-m", "benchmarks.nat_matrix_ice", json.dumps(wishes))
    process = host.popen(argv, env=host.environment(PYTHONPATH=str(ROOT)), stderr=None)
    stack.callback(_end, process)
    return process


def _end(process: subprocess.Popen[str]) -> None:
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(LAST_WORDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _line(process: subprocess.Popen[str]) -> str:
    return _pipe(process.stdout).readline()


def _tell(process: subprocess.Popen[str], what: dict[str, Any]) -> None:
    stream = _pipe(process.stdin)
    stream.write(json.dumps(what) + "\n")
    stream.flush()


def _pipe(stream: IO[str] | None) -> IO[str]:
    if stream is None:
        raise RuntimeError("the agent was started without pipes")
    return stream


# -- the agent -----------------------------------------------------------------------------------


async def main(wishes: dict[str, Any]) -> None:
    """Gather, say what was found, take the other's, connect, exchange a message, stay until told to end."""
    connection = aioice.Connection(
        ice_controlling=wishes["controlling"],
        stun_server=_endpoint(wishes["stun"]),
        turn_server=_endpoint(wishes["turn"]),
        turn_username=USER,
        turn_password=PASSWORD,
        turn_transport=wishes["transport"],
        use_ipv6=False,
    )
    try:
        async with asyncio.timeout(PATIENCE):
            await connection.gather_candidates()
            _say(
                {
                    "candidates": [candidate.to_sdp() for candidate in connection.local_candidates],
                    "user": connection.local_username,
                    "password": connection.local_password,
                }
            )
            theirs = json.loads(await asyncio.to_thread(sys.stdin.readline))
            _say(await _connect(connection, theirs))
            await asyncio.to_thread(sys.stdin.readline)
    finally:
        await connection.close()


async def _connect(connection: aioice.Connection, theirs: dict[str, Any]) -> dict[str, Any]:
    began = time.perf_counter()
    connection.remote_username = theirs["user"]
    connection.remote_password = theirs["password"]
    for sdp in theirs["candidates"]:
        await connection.add_remote_candidate(aioice.Candidate.from_sdp(sdp))
    await connection.add_remote_candidate(None)
    try:
        async with asyncio.timeout(TIMEOUT):
            await connection.connect()
            at = time.perf_counter()  # CLOCK_MONOTONIC: the same for all processes of a machine
            await connection.send(b"hello")
            good = await connection.recv() == b"hello"
    except (ConnectionError, TimeoutError) as error:
        return {"error": f"{type(error).__name__}: {error}", "seconds": time.perf_counter() - began}
    return {"at": at, "messages": good}


def _endpoint(value: list[Any] | None) -> tuple[str, int] | None:
    return None if value is None else (value[0], value[1])


def _say(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
