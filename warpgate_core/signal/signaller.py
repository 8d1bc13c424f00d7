"""What the engine needs from signalling, and nothing more.

`Router` implements it over MQTT brokers; tests have one in memory. The engine seals its messages itself,
because the very same bytes also travel over direct paths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from warpgate_core.address import BrokerHint
from warpgate_core.signal.envelope import Envelope, Sealed

__all__ = ["DELIVERY_TIMEOUT", "OnEnvelope", "Signaller"]

# Seconds. A cold path over TLS at 200 ms round trip needs about 1.2 s (TCP, TLS, CONNECT, SUBSCRIBE,
# message); the rest is room for two retransmissions.
DELIVERY_TIMEOUT: Final = 5.0

OnEnvelope = Callable[[Envelope], bool | None]


class Signaller(Protocol):
    """Carries sealed messages to a key, and hands over the ones that came for us.

    Attributes:
        on_envelope: called once with every message that is verified, fresh and not a replay. Returns
            True if it took the message; anything else leaves it to the application's handlers. Must not
            block.
    """

    on_envelope: OnEnvelope | None

    async def deliver(
        self,
        dest: bytes,
        sealed: Sealed,
        hints: Sequence[BrokerHint] = (),
        timeout: float = DELIVERY_TIMEOUT,
    ) -> bool:
        """Carry `sealed` to `dest`.

        Args:
            dest: 33-byte compressed public key of the recipient.
            sealed: what `EnvelopeCodec.seal` made for that key.
            hints: brokers the recipient said it listens at; tried first.
            timeout: seconds, from now.

        Returns:
            True once the recipient acknowledged; False if it did not in time, or refused.

        Raises:
            NoBrokerError: there is no broker to try at all.
        """
        ...

    def skew(self, peer: bytes) -> float | None:
        """Seconds that a peer's clock is ahead of ours, from its last acknowledgement; None if unknown.

        A message that was refused for its stamp is acknowledged too, so this says why.
        """
        ...
