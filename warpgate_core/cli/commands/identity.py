"""``warpgate id``: who this node is, and where its key is kept."""

from __future__ import annotations

from argparse import Namespace

from warpgate_core.cli.parser import home_in
from warpgate_core.cli.settings import home, identity_file, open_identity
from warpgate_core.cli.terminal import Terminal

__all__ = ["run"]


def run(args: Namespace, terminal: Terminal) -> int:
    """Show the identity, and make it if there is none."""
    directory = home(args)
    identity, is_new = open_identity(directory)
    file = identity_file(directory)
    if is_new:
        terminal.say(f"a new identity was made: {home_in(str(file))}")
    if terminal.json:
        terminal.result_json(
            {
                "node_id": identity.node_id,
                "public_key": identity.public_key_hex,
                "file": str(file),
                "created": is_new,
            }
        )
        return 0
    terminal.result(f"node id     {identity.node_id}")
    terminal.result(f"public key  {identity.public_key_hex}")
    terminal.result(f"kept in     {file}")
    return 0
