"""For who writes strategies: a network in memory, a clock that jumps, a conformance kit.

Import what you need from the modules themselves; nothing is re-exported, because the pytest plugin lives
here and must cost nothing until a test asks for it.

==================  ==================================================================================
`loop`              `run_virtual`: a coroutine on virtual time; finds what is left behind
`network`, `line`   `MemoryNetwork`, `Line`: hosts, homes behind NATs, delay, loss, faults
`nat`               `NatRules` and ready-made ones: `PORT_RESTRICTED`, `SYMMETRIC`...
`signal`            `MemorySignal`: what brokers do, without brokers
`conformance`       ``python -m warpgate_core.testing.conformance package.module:Strategy``
`pytest_plugin`     the same checks as a pytest fixture, `warpgate_check`
==================  ==================================================================================

See docs/writing-a-strategy.md.
"""

__all__: list[str] = []
