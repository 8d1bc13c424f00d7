"""The engine: sessions on a running event loop. Composes codec, signaller, edge and registry.

Everything that decides is in `session/` and `race/` and is pure; what is here moves bytes, holds timers
and tasks, and sees to it that all of them end.
"""
