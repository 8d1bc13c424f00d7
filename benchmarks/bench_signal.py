"""Signal-and-acknowledge against bare aiomqtt ping-pong, on the same mosquitto, in the same run.

    uv run python benchmarks/bench_signal.py [--runs N]

Both ends of each pair live in this process. A ping-pong is two publishes of the same size as a sealed
message and back; a signal is signed, sealed, carried, opened, verified, handled in order, and
acknowledged under a key of its own. The two are measured in alternating rounds, so that a busy moment
hits both. The cold figure is the first message to a key never talked to before, by a router that has
just started, connections included.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Self

import aiomqtt

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.fixtures.brokers import Mosquitto
from warpgate_core.identity import Identity
from warpgate_core.signal.envelope import OVERHEAD, EnvelopeCodec, fastest_backend
from warpgate_core.signal.router import Router

PAYLOAD = 200  # bytes; an offer without many strategies
ROUND = 100  # exchanges in a row of one kind
COLD = 20


async def timed(action: Callable[[], Awaitable[object]], count: int) -> list[float]:
    """Durations in ms."""
    found = []
    for _ in range(count):
        began = time.perf_counter()
        await action()
        found.append((time.perf_counter() - began) * 1e3)
    return found


def row(name: str, values: list[float], base: float | None = None) -> tuple[str, ...]:
    """One line of the table."""
    cuts = statistics.quantiles(values, n=100)
    ratio = "" if base is None else f"{cuts[49] / base:.2f}"
    return (name, *(f"{value:.3f}" for value in (cuts[49], cuts[94], cuts[98])), ratio)


def show(rows: list[tuple[str, ...]]) -> None:
    """A table."""
    widths = [max(len(line[column]) for line in rows) for column in range(len(rows[0]))]
    for number, line in enumerate(rows):
        cells = (
            text.ljust(w) if n == 0 else text.rjust(w)
            for n, (text, w) in enumerate(zip(line, widths, strict=True))
        )
        print("  ".join(cells))
        if number == 0:
            print("  ".join("-" * width for width in widths))


class PingPong:
    """Two bare aiomqtt clients."""

    def __init__(self, port: int) -> None:
        self._a, self._b = (aiomqtt.Client("127.0.0.1", port) for _ in range(2))
        self._data = bytes(PAYLOAD + OVERHEAD)

    async def __aenter__(self) -> Self:
        await self._a.__aenter__()
        await self._b.__aenter__()
        await self._a.subscribe("bench/a")
        await self._b.subscribe("bench/b")
        self._answering = asyncio.create_task(self._answer())
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._answering.cancel()
        await asyncio.wait((self._answering,))
        await self._a.__aexit__(None, None, None)
        await self._b.__aexit__(None, None, None)

    async def _answer(self) -> None:
        async for message in self._b.messages:
            await self._b.publish("bench/a", message.payload)

    async def exchange(self) -> None:
        await self._a.publish("bench/b", self._data)
        await self._a.messages.__anext__()


def router(url: str, backend: str, handler: object = None) -> Router:
    """A router whose keys are handled by one library alone, for signing and for verifying."""
    identity = Identity.generate(backend)
    made = Router(identity, handler, get_time=time.time, servers=[url])  # type: ignore[arg-type]
    made.codec = EnvelopeCodec(identity, time.time, backend=backend)
    return made


async def cold(url: str, backend: str) -> float:
    """First message of a new router to a new key, in ms; connecting included."""
    async with router(url, backend, lambda *_: None) as there:
        here = router(url, backend)
        began = time.perf_counter()
        await here.start()
        pipe = await here.pipe(there.identity.public_key)
        assert await pipe.send(bytes(PAYLOAD)) == PAYLOAD
        took = (time.perf_counter() - began) * 1e3
        await here.close()
    return took


async def main(runs: int) -> None:
    backends = list(dict.fromkeys((fastest_backend("cryptography"), "cryptography")))
    bare: list[float] = []
    signals: dict[str, list[float]] = {backend: [] for backend in backends}
    async with Mosquitto() as broker:
        for backend in backends:
            async with (
                PingPong(broker.port) as pingpong,
                router(broker.url, backend, lambda *_: None) as there,
                router(broker.url, backend) as here,
            ):
                pipe = await here.pipe(there.identity.public_key)

                async def signal(pipe=pipe) -> None:  # type: ignore[no-untyped-def]
                    assert await pipe.send(bytes(PAYLOAD)) == PAYLOAD

                await timed(pingpong.exchange, ROUND)  # warm both
                await timed(signal, ROUND)
                for _ in range(max(1, runs // ROUND)):
                    bare += await timed(pingpong.exchange, ROUND)
                    signals[backend] += await timed(signal, ROUND)
        colds = {backend: [await cold(broker.url, backend) for _ in range(COLD)] for backend in backends}
    base = statistics.median(bare)
    rows = [("ms", "p50", "p95", "p99", "ratio"), row("bare aiomqtt ping-pong", bare)]
    for backend in backends:
        rows.append(row(f"signal and acknowledge, keys by {backend}", signals[backend], base))
        rows.append(row(f"  first one, connecting included ({COLD})", colds[backend]))
    show(rows)
    count = len(signals[backends[0]])
    print(f"\n{len(bare)} ping-pongs, {count} signals each; {PAYLOAD} bytes sealed to {PAYLOAD + OVERHEAD}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=2000, help="exchanges of each kind (default 2000)")
    asyncio.run(main(parser.parse_args().runs))
