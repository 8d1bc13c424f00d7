"""One module per command. Each has `run(args, terminal)`, a coroutine function where it needs a loop."""

__all__: list[str] = []
