"""Brokers as people write them: URLs, dictionaries, the lists of aionetiface; and every mistake."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpgate_core.address import BrokerHint
from warpgate_core.endpoint import IP4, IP6
from warpgate_core.errors import ConfigError
from warpgate_core.signal.brokers import Broker, merge, parse_hints, parse_url, redact
from warpgate_core.signal.servers import parse_servers

SECRET = "s3cr3t-Pa55"


@pytest.mark.parametrize(
    ("text", "host", "port", "scheme", "path"),
    [
        ("203.0.113.10:1883", "203.0.113.10", 1883, "mqtt", "/mqtt"),
        ("203.0.113.10", "203.0.113.10", 1883, "mqtt", "/mqtt"),
        ("Broker.Example.", "broker.example", 1883, "mqtt", "/mqtt"),
        ("broker_1.example:99", "broker_1.example", 99, "mqtt", "/mqtt"),
        ("[2001:db8::1]:1884", "2001:db8::1", 1884, "mqtt", "/mqtt"),
        ("[2001:db8::1]", "2001:db8::1", 1883, "mqtt", "/mqtt"),
        ("2001:DB8::1", "2001:db8::1", 1883, "mqtt", "/mqtt"),
        ("mqtts://h", "h", 8883, "mqtts", "/mqtt"),
        ("MQTT://h/", "h", 1883, "mqtt", "/mqtt"),
        ("ws://h/a/b", "h", 80, "ws", "/a/b"),
        ("wss://h:8084", "h", 8084, "wss", "/mqtt"),
        ("  wss://h  ", "h", 443, "wss", "/mqtt"),
    ],
)
def test_urls(text: str, host: str, port: int, scheme: str, path: str) -> None:
    broker = parse_url(text)
    assert (broker.host, broker.port, broker.scheme, broker.path) == (host, port, scheme, path)
    assert (broker.username, broker.password, broker.weight) == (None, None, 1.0)


def test_credentials_are_percent_decoded() -> None:
    broker = parse_url("mqtts://us%40er:p%2F%3A%40%25@host:8883?weight=2.5")
    assert (broker.username, broker.password, broker.weight) == ("us@er", "p/:@%", 2.5)
    assert parse_url("mqtt://user@host").password is None
    assert parse_url("mqtt://user:@host").password == ""


def test_families_are_those_of_the_address() -> None:
    assert parse_url("203.0.113.1").families == {IP4}
    assert parse_url("[2001:db8::1]").families == {IP6}
    assert parse_url("name").families == {IP4, IP6}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mqtt://",
        ":1883",
        "http://h",
        "h:0",
        "h:65536",
        "h:port",
        "h:1:2",
        "[::1",
        "[::1]x",
        "[name]:1",
        "mqtt://h/path",
        "mqtt://@h",
        "mqtt://:pw@h",
        "mqtt://u:p/w@h",
        "mqtt://h?weight=0",
        "mqtt://h?weight=heavy",
        "mqtt://h?color=red",
        "ws://h/a b",
        "a host",
        "999.1.1.1",
        "-h-",
        "mqtt://h:\uff11\uff18\uff18\uff13",
    ],
)
def test_what_is_no_broker_says_how_to_write_one(text: str) -> None:
    with pytest.raises(ConfigError, match="broker"):
        parse_url(text)


@pytest.mark.parametrize(
    "text",
    [
        f"http://user:{SECRET}@host",
        f"mqtt://user:{SECRET}@host:port",
        f"mqtt://user:{SECRET}@",
        f"mqtt://user:{SECRET}/x@host",
        f"mqtt://user:{SECRET}#x@host:1",
        f"mqtt://:{SECRET}@host",
        f"user:{SECRET}@host:99999",
        f"mqtt://user:{SECRET}@host/path",
        f"mqtt://user:{SECRET}@[::1",
        f"mqtt://user:{SECRET}@host?weight=no",
        f"user:{SECRET}@x://host",
        f"mqtt://a:b@c:{SECRET}@host:x",
        f"mqtt://user:{SECRET}",
        f"user:{SECRET}",
        f"http://user:{SECRET}/x",
    ],
)
def test_no_error_shows_a_password(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_url(text)
    shown: BaseException | None = caught.value
    while shown is not None:  # the chain is printed, too
        assert SECRET not in str(shown)
        assert SECRET not in repr(shown)
        shown = shown.__cause__ or (None if shown.__suppress_context__ else shown.__context__)


@given(st.text("abc/?#%:[]. ", max_size=12), st.text("h:/?#[]x1", max_size=12))
def test_no_error_shows_a_password_whatever_surrounds_it(before: str, after: str) -> None:
    try:
        shown = str(parse_url(f"mqtt://u:{SECRET}{before}@{after}"))
    except ConfigError as error:
        shown = str(error)
    assert SECRET not in shown


def test_passwords_are_in_no_repr_and_no_url() -> None:
    broker = parse_url(f"mqtts://someone:{SECRET}@host")
    assert SECRET not in repr(broker) + str(broker) + broker.url + str(broker.hint)
    assert "someone" not in repr(broker)
    assert redact(f"x:{SECRET}@host:1") == "***@host:1"
    assert redact("ws://host:1/x?weight=1") == "ws://host:1/x?weight=1"


def test_a_broker_made_by_hand_is_checked_as_well() -> None:
    for wrong in (
        {"host": "a b"},
        {"port": 0},
        {"port": "1883"},
        {"scheme": "http"},
        {"weight": 0.0},
        {"weight": "heavy"},
        {"password": "x"},
        {"path": "mqtt"},
        {"path": "/a\r\nX: y"},
    ):
        with pytest.raises(ConfigError):
            Broker(**({"host": "h", "port": 1} | wrong))  # type: ignore[arg-type]


def test_hint_and_id() -> None:
    broker = parse_url("wss://[2001:db8:0::1]:8084/x")
    assert broker.broker_id == "[2001:db8::1]:8084"
    assert broker.hint == BrokerHint("2001:db8::1", 8084, "wss")
    assert str(broker) == "wss://[2001:db8::1]:8084/x"
    assert Broker.of_hint(broker.hint).path == "/mqtt"


class TestServers:
    def test_the_documented_dictionary(self) -> None:
        pool = parse_servers(
            {
                socket.AF_INET: {"broker.example.com": {"port": 1883, "weight": 2.0}, "203.0.113.9": {}},
                socket.AF_INET6: {"broker.example.com": {"port": 1883, "weight": 2.0}},
            }
        )
        assert [(b.broker_id, b.weight) for b in pool] == [
            ("broker.example.com:1883", 2.0),
            ("203.0.113.9:1883", 1.0),
        ]
        assert pool[0].families == {IP4, IP6}
        assert pool[1].families == {IP4}

    def test_our_families_credentials_and_schemes(self) -> None:
        (broker,) = parse_servers(
            {IP6: {"h": {"scheme": "wss", "user": "u", "password": "p", "path": "/x", "weight": 3}}}
        )
        assert (broker.port, broker.scheme, broker.username, broker.password) == (443, "wss", "u", "p")
        assert (broker.path, broker.weight) == ("/x", 3.0)
        assert broker.families == {IP6}

    def test_the_list_of_aionetiface(self) -> None:
        entry: dict[str, Any] = {"id": 1, "port": 1883, "user": None, "password": None, "fqns": ["m.example"]}
        pool = parse_servers(
            {
                "IPv4": {
                    "UDP": [
                        [{**entry, "ip": "192.0.2.1", "score": 0.99}],
                        [{**entry, "ip": "192.0.2.9", "score": 0.1, "fqns": []}],
                    ],
                    "TCP": [],
                },
                "IPv6": {"UDP": [[{**entry, "ip": "2001:0db8:0000::1", "user": None}]]},
            }
        )
        assert [b.broker_id for b in pool] == ["m.example:1883"]
        assert pool[0].addresses == ("192.0.2.1", "2001:db8::1")
        assert pool[0].families == {IP4, IP6}

    def test_lists_urls_values_and_one_text(self) -> None:
        broker = parse_url("b:2")
        assert parse_servers(["a:1", broker]) == (parse_url("a:1"), broker)
        assert parse_servers("a:1, b:2") == (parse_url("a:1"), broker)
        assert parse_servers([]) == ()

    def test_the_environment(self) -> None:
        environ = {"WARPGATE_BROKERS": " a:1 ,mqtts://u:p@b, "}
        assert [b.url for b in parse_servers(None, environ)] == ["mqtt://a:1", "mqtts://b:8883"]
        assert parse_servers(None, {}) == ()

    @pytest.mark.parametrize(
        "wrong",
        [
            5,
            [5],
            {7: {}},
            {"IPv9": {}},
            {socket.AF_INET: ["h"]},
            {socket.AF_INET: {"h": 1883}},
            {socket.AF_INET: {"h": {"wieght": 1}}},
            {socket.AF_INET: {"h": {"port": "1883"}}},
            {socket.AF_INET: {"2001:db8::1": {}}},
            {"IPv4": {"UDP": [["203.0.113.1"]]}},
            {"IPv4": {"UDP": [[{"ip": "203.0.113.1", "port": None}]]}},
        ],
    )
    def test_everything_else_is_a_config_error(self, wrong: object) -> None:
        with pytest.raises(ConfigError):
            parse_servers(wrong)

    def test_one_broker_with_two_settings_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="twice"):
            parse_servers(["mqtt://h:1", "mqtts://h:1"])
        assert len(merge([parse_url("h:1"), parse_url("h:1")])) == 1

    def test_public_needs_the_extra(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        import importlib.metadata as metadata

        def missing(name: str) -> metadata.Distribution:
            raise metadata.PackageNotFoundError(name)

        monkeypatch.setattr(metadata, "distribution", missing)
        with pytest.raises(ConfigError, match=r"warpgate-core\[aionetiface\]"):
            parse_servers("public")

    def test_public_reads_the_list_without_importing(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """An installed distribution as importlib sees it, with such a file in it."""
        package = tmp_path / "aionetiface"
        package.mkdir()
        (package / "__init__.py").write_text("raise RuntimeError('imported')\n")
        entry = {"ip": "192.0.2.1", "port": 1883, "user": None, "password": None, "score": 1.0, "fqns": []}
        (package / "servers.json").write_text(json.dumps({"MQTT": {"IPv4": {"UDP": [[entry]], "TCP": []}}}))
        info = tmp_path / "aionetiface-0.0.24.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: aionetiface\nVersion: 0.0.24\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        pool = parse_servers(["public", "h:1"])
        assert [b.broker_id for b in pool] == ["192.0.2.1:1883", "h:1"]
        (package / "servers.json").write_text("{}")
        with pytest.raises(ConfigError, match="no part MQTT"):
            parse_servers("public")


class TestHints:
    def test_both_shapes(self) -> None:
        found = parse_hints(
            [BrokerHint("h", 1, "ws"), {"af": socket.AF_INET6, "host": "B.example", "port": 2}, {"host": "c"}]
        )
        assert [b.broker_id for b in found] == ["h:1", "b.example:2", "c:1883"]
        assert [b.scheme for b in found] == ["ws", "mqtt", "mqtt"]
        assert found[1].families == {IP6}
        assert parse_hints(None) == []

    @pytest.mark.parametrize("wrong", ["h:1", {"port": 1}, {"host": "h", "port": "1"}, {"host": "a b"}])
    def test_what_is_no_hint(self, wrong: Any) -> None:
        with pytest.raises(ConfigError):
            parse_hints([wrong])
