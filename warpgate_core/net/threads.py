"""Run one blocking call in a daemon thread and await it.

For the calls that have no asynchronous form and no bound of their own: name lookups, and NTP. Rejected:
the event loop's executor. Its few threads are shared with everybody, a call that hangs holds one for as
long as it likes, and `asyncio.run` and the interpreter wait for all of them at the end. A daemon thread
whose caller has gone simply ends unheard.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

__all__ = ["in_thread"]

T = TypeVar("T")


async def in_thread(name: str, call: Callable[[], T]) -> T:
    """Run `call()` in a thread of its own; the caller bounds the wait with `asyncio.timeout`.

    Args:
        name: of the thread, for people who look at a stack dump.
        call: anything that blocks. It cannot be stopped, so it must end by itself some day.

    Returns:
        What `call` returned.

    Raises:
        Exception: whatever `call` raised.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()

    def settle(setter: Callable[[], None]) -> None:
        if not outcome.done():  # the caller may have stopped waiting
            setter()

    def work() -> None:
        try:
            result = call()
        except Exception as error:  # noqa: BLE001 - handed to the caller, whatever it is
            failure = error
            report(lambda: outcome.set_exception(failure))
        else:
            report(lambda: outcome.set_result(result))

    def report(setter: Callable[[], None]) -> None:
        try:
            loop.call_soon_threadsafe(settle, setter)
        except RuntimeError:  # the loop was closed meanwhile: nobody is left to hear of it
            return

    threading.Thread(target=work, name=f"warpgate: {name}", daemon=True).start()
    return await outcome
