"""The real servers of the lab: mosquitto brokers, and coturn as STUN and TURN server.

Each stands on a machine of its own, so that one can be cut off, frozen or killed while the others go
on. Nothing is read from, or left in, the folders that the Debian packages use.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from tests.lab.errors import LabUnavailable
from tests.lab.host import Host
from tests.lab.process import Service

__all__ = ["Broker", "Coturn"]

MQTT_PORT = 1883  # IANA service name "mqtt"
STUN_PORT = 3478  # RFC 8489 section 14.1
ALTERNATE_PORT = 3479  # RFC 5780 leaves it to the server; coturn takes the next one
TURN_USER, TURN_PASSWORD, TURN_REALM = "warpgate", "lab-secret", "lab"


def _need(program: str, package: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise LabUnavailable(f"{program} is not installed: apt-get install {package}")
    return path


class Broker(Service):
    """A mosquitto that anybody may use, on port 1883 of every address of its host.

    Args:
        host: the machine it runs on; gives it its name.
        options: further lines of its configuration.
    """

    def __init__(self, host: Host, options: Sequence[str] = ()) -> None:
        self.host = host
        self.port = MQTT_PORT
        lines = [
            *(f"listener {MQTT_PORT} {address}" for address in host.addresses),
            "allow_anonymous true",
            "persistence false",
            "log_dest stderr",  # its standard output is held back in blocks
            "user root",  # it has nothing to give up: the namespace is all it can reach
            *options,
        ]
        config = host.directory / "mosquitto.conf"
        config.write_text("\n".join(lines) + "\n")
        program = _need("mosquitto", "mosquitto")
        super().__init__(
            host.name, host.command([program, "-c", str(config)]), ready=r"mosquitto version \S+ running"
        )
        host.lab.on_close(self.kill)
        self.start()

    def url(self, family: int = 4) -> str:
        """``mqtt://203.0.113.11:1883``."""
        return f"mqtt://{_authority(self.host, family, self.port)}"

    def endpoint(self, family: int = 4) -> tuple[str, int]:
        """Where it listens."""
        return (self.host.ip4 if family == 4 else self.host.ip6), self.port


class Coturn(Service):
    """A coturn with STUN (RFC 5780 included, if its host has two addresses per family) and TURN.

    TURN takes the user `username` with the password `credential` over UDP and TCP on port 3478.

    Args:
        host: the machine it runs on; gives it its name.
        options: further command-line options.
    """

    def __init__(self, host: Host, options: Sequence[str] = ()) -> None:
        self.host = host
        self.port = STUN_PORT
        self.username = TURN_USER
        self.credential = TURN_PASSWORD
        files = host.directory
        families = sorted({6 if ":" in address else 4 for address in host.addresses})
        argv = [
            *(_need("turnserver", "coturn"), "-n", "--log-file", "stdout", "--simple-log"),
            *("--no-cli", "--no-tls", "--no-dtls", "--listening-port", str(STUN_PORT)),
            *("--alt-listening-port", str(ALTERNATE_PORT)),
            *(part for address in host.addresses for part in ("--listening-ip", address)),
            *(part for family in families for part in ("--relay-ip", host.ip4 if family == 4 else host.ip6)),
            *("--lt-cred-mech", "--user", f"{TURN_USER}:{TURN_PASSWORD}", "--realm", TURN_REALM),
            *("--db", str(files / "turndb"), "--pidfile", str(files / "turnserver.pid")),
            *options,
        ]
        # The last thing it does before it serves, after every listener was opened.
        super().__init__(host.name, host.command(argv), ready="SQLite DB connection success")
        host.lab.on_close(self.kill)
        self.start()

    def endpoint(self, family: int = 4) -> tuple[str, int]:
        """Its first address and port."""
        return (self.host.ip4 if family == 4 else self.host.ip6), self.port

    def stun(self, family: int = 4) -> str:
        """Its first address and port as text, ``203.0.113.14:3478``."""
        return _authority(self.host, family, self.port)

    def turn_url(self, family: int = 4, transport: str = "udp", *, credentials: bool = False) -> str:
        """``turn:203.0.113.14:3478?transport=udp``, with ``user:password@`` if `credentials`."""
        login = f"{self.username}:{self.credential}@" if credentials else ""
        return f"turn:{login}{_authority(self.host, family, self.port)}?transport={transport}"


def _authority(host: Host, family: int, port: int) -> str:
    return f"{host.ip4}:{port}" if family == 4 else f"[{host.ip6}]:{port}"
