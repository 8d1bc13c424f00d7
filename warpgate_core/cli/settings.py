"""From options and environment to a `NodeConfig`; a mistake is told by the option that it was made in."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from warpgate_core.address import NodeAddress
from warpgate_core.cli.exits import UsageError
from warpgate_core.cli.stdio import Source
from warpgate_core.config import NodeConfig
from warpgate_core.errors import AddressError, ConfigError
from warpgate_core.identity import Identity

__all__ = ["accepted_keys", "home", "identity_file", "node_config", "open_identity", "read_address"]

MAX_ADDRESS_FILE = 65_536  # bytes; an address is under 2,000, and a wrong file name should not fill memory

_OPTION_OF = {
    "brokers": "broker",
    "stun": "stun",
    "turn": "turn",
    "nics": "nic",
    "port": "port",
    "families": "family",
    "disable": "disable",
    "ntp": "ntp",
    "home": "home",
}


def node_config(args: Namespace, **more: Any) -> NodeConfig:
    """The configuration of a command's node.

    Args:
        args: the parsed options; those that the command does not have are left to the environment.
        more: further fields of `NodeConfig`.

    Raises:
        UsageError: an option cannot be used.
        ConfigError: an environment variable cannot be used.
    """
    given: dict[str, Any] = {}
    for field, option in _OPTION_OF.items():
        value = getattr(args, option, None)
        if value is None:
            continue
        value = (value,) if field == "families" else value
        try:
            NodeConfig.from_env({}, **{field: value})
        except ConfigError as error:
            text = str(error).removeprefix(f"NodeConfig.{field}: ")
            raise UsageError(f"--{option}: {text}", f"warpgate {args.command}") from error
        given[field] = value
    return NodeConfig.from_env(None, **given, **more)


def home(args: Namespace) -> Path:
    """The directory of the identity."""
    found = NodeConfig.from_env(None, home=args.home).home
    assert isinstance(found, Path)
    return found


def identity_file(directory: Path) -> Path:
    """Where a node with this home keeps its identity."""
    return directory / "identity"


def open_identity(directory: Path) -> tuple[Identity, bool]:
    """The identity kept in `directory`, made if there is none; and whether it was made now.

    Raises:
        IdentityError: damaged, open to others, or cannot be written.
    """
    file = identity_file(directory)
    is_new = not file.exists()
    return Identity.load_or_create(file), is_new


def accepted_keys(words: Iterable[str] | None) -> frozenset[bytes] | None:
    """The public keys that ``--accept`` names, by key or by address; None: everybody.

    Raises:
        UsageError: one of them is neither.
    """
    if words is None:
        return None
    return frozenset(_key_of(word) for word in words)


def _key_of(word: str) -> bytes:
    try:
        return NodeAddress.parse(word).public_key
    except AddressError as no_address:
        try:
            raw = bytes.fromhex(word)
            NodeConfig(accept=(raw,))
        except (ValueError, ConfigError) as error:
            why = str(no_address) if word.lower().startswith("wg") else "write 66 hex digits, or an address"
            raise UsageError(f"--accept: {word!r} is no public key: {why}", "warpgate listen") from error
        return raw


async def read_address(words: list[str], source: Source) -> NodeAddress | str:
    """The destination as it was typed: an address, or a name for a plugin to resolve.

    Args:
        words: the arguments; an address that was broken by spaces comes as several.
        source: standard input, for ``-``.

    Raises:
        AddressError: it is an address, but damaged.
        UsageError: the file cannot be read, or there is nothing in it.
    """
    text = " ".join(words)
    if text == "-":
        text = await source.read_line()
        where = "the first line of standard input"
    elif text.startswith("@"):
        where = f"the file {text[1:]!r}"
        text = _read_file(text[1:])
    else:
        where = "ADDRESS"
    if not text.strip():
        raise UsageError(f"{where} is empty; an address begins with wg1", "warpgate connect")
    try:
        return NodeAddress.parse(text)
    except AddressError as error:
        if where != "ADDRESS" or len(words) > 1 or text.lower().startswith("wg1"):
            raise AddressError(f"{where}: {error}") from error
        return text


def _read_file(name: str) -> str:
    try:
        with open(name, "rb") as file:
            return file.read(MAX_ADDRESS_FILE).decode("utf-8", "replace")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"the file {name!r} cannot be read: {reason}", "warpgate connect") from error
