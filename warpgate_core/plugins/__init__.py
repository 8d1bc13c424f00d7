"""The parts of the registry: what is installed, whether it is sound, its options, its hooks.

Nothing is re-exported: `warpgate_core.registry` composes these modules and is what the rest imports.
"""

__all__: list[str] = []
