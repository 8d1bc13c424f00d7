"""What can be typed: every command and option, and nothing else.

The common options may stand before or after the command. What an option's value means is checked where it
is used (`settings`); here only numbers are. Abbreviations of options are refused: a script that says
``--plug`` would break on the day another option begins so.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from warpgate_core.cli.exits import MEANING, UsageError

__all__ = ["COMMANDS", "build_parser", "home_in", "is_json"]

COMMANDS = {
    "id": "show who this node is; makes the identity at the first use",
    "address": "print this node's address, to give to a peer",
    "listen": "wait for a peer, then join its pipe to standard input and output",
    "connect": "connect to a peer, and join the pipe to standard input and output",
    "doctor": "look at the network, and say what it means for connecting",
    "plugins": "list the installed plugins, and what is wrong with them",
    "broker": "run a small MQTT broker for signalling",
    "demo": "two nodes on this machine: connect, send a message and 10 MB",
}

_ENVIRONMENT = """\
environment, where the option is not given:
  WARPGATE_BROKERS, WARPGATE_STUN, WARPGATE_TURN, WARPGATE_DISABLE
  (comma-separated), WARPGATE_HOME, NO_COLOR"""


class _Parser(argparse.ArgumentParser):
    """Raises instead of printing and exiting."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message.removeprefix("argument "), self.prog)

    def print_help(self, file: Any = None) -> None:
        """As argparse does, but the reader's absence is an error here as well."""
        (file or sys.stdout).write(self.format_help())


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> NoReturn:
        from importlib.metadata import version

        print(f"warpgate {version('warpgate-core')}")
        parser.exit()


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands.

    Raises (when it parses):
        UsageError: something is wrong with what was typed.
    """
    parser = _Parser(
        prog="warpgate",
        description="A connected, authenticated pipe between two machines, whatever is between.",
        epilog=_epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    _add_common(parser, first=True)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, title="commands")
    for name, text in COMMANDS.items():
        sub = commands.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog=_epilog(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        _OPTIONS[name](sub)
        _add_common(sub)
    return parser


def _epilog() -> str:
    lines = [f"  {code.value:>3}  {text}" for code, text in MEANING.items()]
    return "\n".join(["exit codes:", *lines, "", _ENVIRONMENT])


def _add_common(parser: argparse.ArgumentParser, *, first: bool = False) -> None:
    """What every command takes. The command's own parser sets nothing that was not typed after it."""
    group = parser.add_argument_group("output")
    default: dict[str, Any] = {} if first else {"default": argparse.SUPPRESS}
    group.add_argument("--json", action="store_true", help="for programs: JSON instead of text", **default)
    verbose = {"default": 0} if first else default
    group.add_argument(
        "-v", "--verbose", action="count", help="say more; twice: debug log and tracebacks", **verbose
    )
    group.add_argument(
        "--no-color", action="store_true", help="no colours, as with NO_COLOR in the environment", **default
    )
    hidden = {"default": None} if first else default
    parser.add_argument("--until-eof-of", type=_whole(0, 1 << 20), help=argparse.SUPPRESS, **hidden)


def _add_home(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--home", metavar="DIR", help="directory of the identity file")


def _add_disable(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--disable", metavar="NAME", action="append", help="do not use this plugin (repeatable)"
    )


def _add_node(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("node")
    _add = group.add_argument
    _add("--broker", metavar="URL", action="append", help="MQTT broker for signalling (repeatable)")
    _add("--stun", metavar="HOST[:PORT]", action="append", help="STUN server (repeatable)")
    _add("--turn", metavar="URL", action="append", help="TURN server (repeatable); needs warpgate-turn")
    _add("--home", metavar="DIR", help="directory of the identity file")
    _add("--nic", metavar="NAME", action="append", help="network card or own address to use (repeatable)")
    _add("--port", metavar="N", type=_whole(0, 65_535), help="own UDP and TCP port; 0: any (default)")
    family = group.add_mutually_exclusive_group()
    family.add_argument("-4", dest="family", action="store_const", const=4, help="IPv4 only")
    family.add_argument("-6", dest="family", action="store_const", const=6, help="IPv6 only")
    _add("--ntp", metavar="HOST", action="append", help="time server, or 'pool' (repeatable)")
    _add("--disable", metavar="NAME", action="append", help="do not use this plugin (repeatable)")


def _add_linger(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--linger",
        metavar="S",
        type=_seconds(0),
        default=1.0,
        help="over UDP: when standard input has ended, close after S seconds of silence (default 1)",
    )


def _id(parser: argparse.ArgumentParser) -> None:
    _add_home(parser)


def _address(parser: argparse.ArgumentParser) -> None:
    _add_node(parser)


def _listen(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--keep", action="store_true", help="go on with the next pipe when one has ended")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--echo", action="store_true", help="send back what comes")
    what.add_argument(
        "--exec", metavar="CMD", help="give each pipe to a shell command as its standard input and output"
    )
    parser.add_argument(
        "--accept", metavar="KEY", action="append", help="admit only this key or address (repeatable)"
    )
    _add_linger(parser)
    _add_node(parser)


def _connect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "address",
        metavar="ADDRESS",
        nargs="+",
        help="the peer's address; @FILE reads it from a file, - is the first line of standard input",
    )
    parser.add_argument(
        "--timeout", metavar="S", type=_seconds(1e-3), help="seconds until it is given up (20)"
    )
    parser.add_argument(
        "--transport",
        choices=("auto", "tcp", "udp", "any"),
        default="auto",
        help="auto: TCP first, and UDP only between two terminals, as it may lose data",
    )
    parser.add_argument("--plugin", metavar="NAME", action="append", help="use only this (repeatable)")
    _add_linger(parser)
    _add_node(parser)


def _doctor(parser: argparse.ArgumentParser) -> None:
    _add_node(parser)


def _plugins(parser: argparse.ArgumentParser) -> None:
    _add_disable(parser)


def _broker(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--host", metavar="ADDR", default="127.0.0.1", help="own address to listen at (127.0.0.1)"
    )
    parser.add_argument(
        "--port", metavar="N", type=_whole(0, 65_535), default=1883, help="0: any (default 1883)"
    )


def _demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--size", metavar="MB", type=_whole(1, 1_000), default=10, help="megabytes to send (default 10)"
    )


_OPTIONS = {
    "id": _id,
    "address": _address,
    "listen": _listen,
    "connect": _connect,
    "doctor": _doctor,
    "plugins": _plugins,
    "broker": _broker,
    "demo": _demo,
}


class _whole:  # noqa: N801 - reads as a function where it is used
    """A whole number within bounds."""

    def __init__(self, low: int, high: int) -> None:
        self._low, self._high = low, high

    def __call__(self, text: str) -> int:
        if text.isascii() and text.isdigit() and len(text) <= 9 and self._low <= int(text) <= self._high:
            return int(text)
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {self._low} to {self._high}")


class _seconds:  # noqa: N801
    """A finite number of seconds, not below a bound."""

    def __init__(self, low: float) -> None:
        self._low = low

    def __call__(self, text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if math.isfinite(value) and value >= self._low:
            return value
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from {self._low:g}")


def is_json(argv: Sequence[str]) -> bool:
    """Whether ``--json`` was typed, for errors that come before everything was parsed."""
    return "--json" in argv[: argv.index("--") if "--" in argv else len(argv)]


def home_in(path: str) -> str:
    """A path with the user's home directory as ``~``, for people."""
    home = os.path.expanduser("~")
    return "~" + path[len(home) :] if home != "/" and path.startswith(home + os.sep) else path
