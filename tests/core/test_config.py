"""Settings: what is read from where, what is refused with which words, and that nothing secret shows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpgate_core.config import ENVIRONMENT, Limits, NodeConfig
from warpgate_core.endpoint import IP4, IP6
from warpgate_core.errors import ConfigError, IdentityError
from warpgate_core.identity import Identity
from warpgate_core.net.ntp import DEFAULT_SERVERS
from warpgate_core.net.selection import NicWish
from warpgate_core.net.stun_server import StunServer
from warpgate_core.signal.brokers import Broker
from warpgate_core.turn_server import MAX_SERVERS, TurnServer, read_turn_servers

ALICE = Identity.from_secret(bytes(31) + b"\x01")
BOB = Identity.from_secret(bytes(31) + b"\x02")


# -- where values come from ----------------------------------------------------------------------


def test_without_anything_the_defaults_are_complete(warpgate_home: Path) -> None:
    config = NodeConfig()
    assert config.home == warpgate_home
    assert (config.brokers, config.stun, config.turn, config.nics) == ((), (), (), ())
    assert config.families == (IP4, IP6)
    assert (config.disable, config.options, config.ntp) == ((), {}, ())
    assert (config.port, config.patience, config.timeout, config.backend) == (0, 2.5, 20.0, "cryptography")
    assert config.identity is None
    assert config.limits == Limits()


def test_the_environment_fills_what_was_not_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WARPGATE_BROKERS", "203.0.113.10, mqtts://me:pw@broker.example")
    monkeypatch.setenv("WARPGATE_STUN", "stun:203.0.113.20:3479,stun.example")
    monkeypatch.setenv("WARPGATE_TURN", "turn:me:pw@203.0.113.20?transport=tcp")
    monkeypatch.setenv("WARPGATE_DISABLE", " upnp, ,probe ")
    monkeypatch.setenv("WARPGATE_HOME", str(tmp_path / "x"))
    config = NodeConfig()
    assert config.brokers == (
        Broker("203.0.113.10", 1883),
        Broker("broker.example", 8883, "mqtts", "me", "pw"),
    )
    assert config.stun == (StunServer("203.0.113.20", 3479), StunServer("stun.example"))
    assert config.turn == (TurnServer("turn:203.0.113.20?transport=tcp", "me", "pw"),)
    assert config.disable == ("upnp", "probe")
    assert config.home == tmp_path / "x"


def test_what_is_given_wins_and_empty_means_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("WARPGATE_BROKERS", "WARPGATE_STUN", "WARPGATE_TURN"):
        monkeypatch.setenv(variable, "turn:203.0.113.1" if variable.endswith("TURN") else "203.0.113.1")
    monkeypatch.setenv("WARPGATE_DISABLE", "turn")
    config = NodeConfig(brokers=(), stun=["203.0.113.9"], turn=[], disable=())
    assert (config.brokers, config.turn, config.disable) == ((), (), ())
    assert config.stun == (StunServer("203.0.113.9"),)


def test_from_env_takes_another_environment_and_the_command_lines_words(warpgate_home: Path) -> None:
    environ = {"WARPGATE_STUN": "203.0.113.1", "WARPGATE_DISABLE": "turn"}
    config = NodeConfig.from_env(environ, timeout=3, port=None, stun=None, disable=["upnp"])
    assert (config.timeout, config.port) == (3.0, 0)
    assert config.stun == (StunServer("203.0.113.1"),)
    assert config.disable == ("upnp",)
    assert NodeConfig.from_env() == NodeConfig()
    with pytest.raises(ConfigError, match="no field 'brokr'"):
        NodeConfig.from_env({}, brokr=[])


def test_every_variable_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is documented and does nothing would be worse than none."""
    values = {
        "brokers": "203.0.113.1",
        "stun": "203.0.113.1",
        "turn": "turn:203.0.113.1",
        "disable": "turn",
        "home": "/x",
    }
    assert set(values) == set(ENVIRONMENT)
    plain = NodeConfig()
    for name, variable in ENVIRONMENT.items():
        with monkeypatch.context() as patch:
            patch.setenv(variable, values[name])
            assert getattr(NodeConfig(), name) != getattr(plain, name)


def test_a_config_can_be_varied() -> None:
    config = NodeConfig(
        brokers=["203.0.113.10"],
        stun="203.0.113.1",
        turn="turn:u:p@h",
        nics="eth0",
        ntp="pool",
        accept=[ALICE],
    )
    varied = dataclasses.replace(config, port=5)
    assert varied.port == 5
    assert dataclasses.replace(varied, port=0) == config
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.port = 7  # type: ignore[misc]


# -- single fields -------------------------------------------------------------------------------


def test_brokers_in_the_documented_dictionary() -> None:
    config = NodeConfig(brokers={IP4: {"203.0.113.10": {"port": 1884, "weight": 2.0}}})
    assert config.brokers == (Broker("203.0.113.10", 1884, weight=2.0),)


def test_foreign_keys_become_identities() -> None:
    class Signing:
        private_key = bytes(31) + b"\x01"
        public_key_hex = ALICE.public_key_hex

    assert NodeConfig(identity=ALICE).identity is ALICE
    made = NodeConfig(identity=Signing()).identity
    assert isinstance(made, Identity)
    assert made.public_key == ALICE.public_key
    with pytest.raises(IdentityError):
        NodeConfig(identity=object())


def test_nics_families_and_time() -> None:
    config = NodeConfig(nics=["eth0", "203.0.113.5"], families=[6], ntp=["pool", "time.example"])
    assert config.nics == (NicWish(name="eth0"), NicWish(host="203.0.113.5"))
    assert config.families == (IP6,)
    assert config.ntp == (*DEFAULT_SERVERS, "time.example")


WRONG: list[tuple[str, object, str]] = [
    ("brokers", ["http://h"], "unknown scheme"),
    ("brokers", 5, "list of URLs"),
    ("stun", ["h:0"], "no STUN server"),
    ("stun", 5, "as a list"),
    ("turn", ["stun:h"], "no TURN server"),
    ("turn", 5, "as a list"),
    ("nics", 5, "names or addresses"),
    ("port", -1, "0 .any. to 65535"),
    ("port", 65_536, "not 65536"),
    ("port", True, "not True"),
    ("families", (5,), r"write \(4,\), \(6,\) or \(4, 6\)"),
    ("families", (), "at least one"),
    ("families", 4, "not 4"),
    ("disable", 5, "list of names"),
    ("disable", [5], "5 is not"),
    ("options", [("a", 1)], "'plugin'"),
    ("options", {5: {}}, "names of plugins"),
    ("accept", "02ab", "collection of public keys"),
    ("accept", [b"short"], "is no public key"),
    ("accept", ["zz"], "is no public key"),
    ("accept", [b"\x02" + b"\xff" * 32], "is no public key"),
    ("accept", [33], "int is no public key"),
    ("patience", -1, "above 0"),
    ("patience", False, "above 0"),
    ("timeout", 0, "above 0"),
    ("timeout", float("inf"), "above 0"),
    ("timeout", "20", "not '20'"),
    ("limits", {"max_sessions": 5}, r"write Limits\("),
    ("ntp", 5, "list of names"),
    ("backend", "openssl", "one of cryptography, ecdsa, coincurve"),
    ("home", 5, "a directory is wanted"),
]


@pytest.mark.parametrize(("name", "value", "text"), WRONG, ids=[f"{n}={v!r}"[:40] for n, v, _ in WRONG])
def test_a_wrong_field_is_named(name: str, value: object, text: str) -> None:
    with pytest.raises(ConfigError, match=text) as caught:
        NodeConfig(**{name: value})  # type: ignore[arg-type]
    assert str(caught.value).startswith(f"NodeConfig.{name}: ")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("WARPGATE_BROKERS", "mqtt://me:hunter2@h:x"),
        ("WARPGATE_STUN", "h:x"),
        ("WARPGATE_TURN", "turn:me:hunter2@h:x"),
    ],
)
def test_a_wrong_variable_is_named(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError) as caught:
        NodeConfig()
    assert str(caught.value).startswith(f"{variable}: ")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Limits)])
@pytest.mark.parametrize("value", [0, -1, "5", None, 1.5])
def test_limits_are_whole_numbers(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=field):
        Limits(**{field: value})  # type: ignore[arg-type]


def test_a_relay_may_be_used_at_once() -> None:
    assert NodeConfig(patience=0).patience == 0.0


def test_repr_shows_no_secret() -> None:
    config = NodeConfig(
        identity=ALICE,
        brokers=["mqtt://me:hunter2@h"],
        turn=["turn:me:hunter2@h", TurnServer("turn:h", None, "hunter2", "hmac")],
        options={"turn": {"secret": "hunter2"}},
    )
    assert "hunter2" not in repr(config)
    assert "hunter2" not in str(config)


# -- whom to accept ------------------------------------------------------------------------------


def test_everybody_is_accepted_unless_told_otherwise() -> None:
    assert NodeConfig().accepts(ALICE.public_key)


@pytest.mark.parametrize("key", [ALICE.public_key, ALICE.public_key_hex, ALICE])
def test_a_collection_of_keys(key: object) -> None:
    config = NodeConfig(accept=[key])
    assert config.accepts(ALICE.public_key)
    assert not config.accepts(BOB.public_key)


def test_an_empty_collection_accepts_nobody() -> None:
    assert not NodeConfig(accept=[]).accepts(ALICE.public_key)


def test_a_function() -> None:
    config = NodeConfig(accept=lambda key: key == BOB.public_key)
    assert config.accepts(BOB.public_key)
    assert not config.accepts(ALICE.public_key)


def test_a_function_that_fails_admits_nobody(caplog: pytest.LogCaptureFixture) -> None:
    failing: Callable[[bytes], bool] = lambda key: 1 / 0 > 0  # noqa: E731
    assert not NodeConfig(accept=failing).accepts(ALICE.public_key)
    assert "NodeConfig.accept raised" in caplog.text
    odd: Any = lambda key: "yes"  # noqa: E731
    assert not NodeConfig(accept=odd).accepts(ALICE.public_key)
    assert "not True or False" in caplog.text


def test_a_coroutine_function_would_admit_everybody() -> None:
    async def accept(key: bytes) -> bool:
        return False

    with pytest.raises(ConfigError, match="a coroutine is always true"):
        NodeConfig(accept=accept)  # type: ignore[arg-type]


# -- TURN servers --------------------------------------------------------------------------------

URLS = [
    ("turn:203.0.113.20", "203.0.113.20", 3478, "udp", False),
    ("TURN:Relay.Example:3479", "relay.example", 3479, "udp", False),
    ("turn:relay.example?transport=tcp", "relay.example", 3478, "tcp", False),
    ("turns:relay.example", "relay.example", 5349, "tcp", True),
    ("turn://[2001:db8::1]:5000?transport=UDP", "2001:db8::1", 5000, "udp", False),
    (" turn:h ", "h", 3478, "udp", False),
]


@pytest.mark.parametrize(("url", "host", "port", "transport", "tls"), URLS)
def test_turn_urls(url: str, host: str, port: int, transport: str, tls: bool) -> None:
    server = TurnServer(url)
    assert (server.host, server.port, server.transport, server.is_tls) == (host, port, transport, tls)
    assert TurnServer(server.url) == server


def test_credentials_leave_the_url() -> None:
    server = TurnServer("turn:user%3Aname:p%40ss%2C@h:1?transport=tcp")
    assert (server.username, server.credential) == ("user:name", "p@ss,")
    assert server == TurnServer("turn:h:1?transport=tcp", "user:name", "p@ss,")
    for text in (server.url, str(server), repr(server)):
        assert "p@ss" not in text
        assert "p%40ss" not in text


def test_hmac_and_rest_in_a_url() -> None:
    assert TurnServer("turn::shared@h?auth=hmac") == TurnServer("turn:h", None, "shared", "hmac")
    rest = TurnServer("turn:h?auth=rest&rest=https%3A%2F%2Fx.example%2Fget%3Fkey%3D1")
    assert rest.credential_url == "https://x.example/get?key=1"
    assert "key=1" not in repr(rest)


BAD_TURN: list[tuple[str, dict[str, Any], str]] = [
    ("203.0.113.1", {}, "no TURN server"),
    ("stun:h", {}, "no TURN server"),
    ("turn:", {}, "names no host"),
    ("turn:h:", {}, "port is not"),
    ("turn:h:0", {}, "port is not"),
    ("turn:h:65536", {}, "port is not"),
    ("turn:h/x", {}, "names no host"),
    ("turn:2001:db8::1", {}, "port is not|brackets"),
    ("turn:[2001:db8::1", {}, "brackets"),
    ("turn:h?transport=sctp", {}, "transport is udp or tcp"),
    ("turns:h?transport=udp", {}, "over tcp only"),
    ("turn:h?x=1", {}, "after the . come"),
    ("turn:h?transport=udp&transport=tcp", {}, "after the . come"),
    ("turn:me:a/b@h", {}, "percent-encode"),
    ("turn:h", {"username": "me"}, "both user name and password"),
    ("turn:h", {"credential": "hunter2"}, "both user name and password"),
    ("turn:me:hunter2@h", {"credential": "other"}, "both in the URL and beside it"),
    ("turn:h", {"credential_type": "hmac"}, "needs the secret"),
    ("turn:h", {"credential_type": "rest"}, "needs credential_url"),
    ("turn:h", {"credential_type": "rest", "credential_url": "ftp://x"}, "needs credential_url"),
    ("turn:h", {"credential_type": "oauth"}, "one of"),
    ("turn:h", {"credential_url": "https://x"}, "goes with"),
    ("turn:h", {"username": "me", "credential": b"hunter2"}, "credential is text"),
]


@pytest.mark.parametrize(("url", "fields", "text"), BAD_TURN)
def test_turn_servers_that_make_no_sense(url: str, fields: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text) as caught:
        TurnServer(url, **fields)
    assert "hunter2" not in str(caught.value)


def test_a_list_of_turn_servers() -> None:
    one = TurnServer("turn:a")
    assert read_turn_servers("turn:a,turn:b,turn:a") == (one, TurnServer("turn:b"))
    assert read_turn_servers(one) == (one,)
    with pytest.raises(ConfigError, match="too many"):
        read_turn_servers([f"turn:h{number}" for number in range(MAX_SERVERS + 1)])
    with pytest.raises(ConfigError, match="text, not int"):
        read_turn_servers([5])


@given(st.text(max_size=60))
def test_any_text_is_a_server_or_a_config_error_that_hides_the_password(text: str) -> None:
    for url in (text, "turn:" + text, "turn:u:Hidden77@" + text):
        try:
            server = TurnServer(url)
        except ConfigError as error:
            assert "Hidden77" not in str(error)  # noqa: PT017 - most texts are refused, some are not
        else:
            assert TurnServer(server.url).host == server.host
            assert "Hidden77" not in repr(server)
