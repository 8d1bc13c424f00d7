"""Two nodes and a broker in one program: the whole main job, nothing to set up.

uv run python examples/hello.py
"""

import asyncio

from warpgate_core import EmbeddedBroker, Identity, Node, NodeConfig, auto_connect


async def main() -> None:
    """Connect, say hello, answer."""
    async with EmbeddedBroker() as broker:
        alice = Node(NodeConfig(identity=Identity.generate(), brokers=[broker.url]))
        bob = Node(NodeConfig(identity=Identity.generate(), brokers=[broker.url]))
        async with alice, bob:
            pipe, plugin = await auto_connect(alice, bob.address)
            async with pipe, await bob.accept() as other:
                print(f"connected by {plugin.name}: {pipe.path}")
                await pipe.send(b"hello")
                print("bob received:", (await other.recv()).decode())
                await other.send(b"good to see you")
                print("alice received:", (await pipe.recv()).decode())


if __name__ == "__main__":
    asyncio.run(main())
