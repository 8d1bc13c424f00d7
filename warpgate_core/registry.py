"""The plugins of one node: what is installed, what is loaded, what is wrong with the others.

One registry per node and no table in the module, so two nodes in a process may use different plugins.
The parts are in `warpgate_core.plugins`: discovery, checks, options, hooks. The rule that everything
here serves: a broken plugin is a record with a sentence and harms nobody else.

Names are the entry points' names, and a strategy's own name must be the same. So duplicates are found,
and disabled plugins left alone, without importing anything. Rejected: letting the later of two
duplicates win, as most plugin systems do: which one is later depends on the order of directories.
"""

from __future__ import annotations

import logging
import types
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from warpgate_core.errors import ConfigError, PluginError
from warpgate_core.plugins.checks import (
    HookSpec,
    IncompatiblePluginError,
    check_api_version,
    check_strategy,
    did_you_mean,
    hook_specs,
    options_type,
)
from warpgate_core.plugins.hooks import BoundedCalls, HookSet
from warpgate_core.plugins.options import parse_options
from warpgate_core.plugins.record import PluginKind, PluginRecord, PluginState, describe
from warpgate_core.strategy import Strategy, StrategySpec, is_valid_name

if TYPE_CHECKING:
    from warpgate_core.plugins.discovery import Candidate

__all__ = ["HOOK_TIMEOUT", "PluginKind", "PluginRecord", "PluginState", "Registry"]

HOOK_TIMEOUT = 5.0  # s; what a person waits for a name to be resolved (DNS gives up after 5 s as well)
log = logging.getLogger("warpgate.plugins")

# Where to get the strategies that are not in the core; names only, nothing is imported.
_KNOWN = {
    "probe": "warpgate-probe",
    "punch-tcp": "warpgate-punch",
    "punch-udp": "warpgate-punch",
    "turn": "warpgate-turn",
    "upnp": "warpgate-upnp",
}


@dataclass(frozen=True, slots=True)
class _Plugin:
    """A sound plugin."""

    name: str
    strategy: type[Strategy] | None
    hooks: HookSet | None
    options: Any


class Registry:
    """Finds, checks and holds the plugins of one node.

    First `add` what is built in or the program's own, then `load` what is installed; then ask.

    Args:
        disable: names of plugins or of distributions that are not to be used, nor imported.
        options: per plugin name, a dict of its options (or an instance of its options dataclass).
        settings: of the node, for options that ask for one of them by ``metadata={"setting": name}``.
        discover: whether `load` looks for installed plugins; False: only what is added.
        hook_timeout: seconds that an asynchronous hook may take.
    """

    def __init__(
        self,
        *,
        disable: Iterable[str] = (),
        options: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        discover: bool = True,
        hook_timeout: float = HOOK_TIMEOUT,
    ) -> None:
        names = (disable,) if isinstance(disable, str) else tuple(disable)
        self._disable = frozenset(_canonical(name) for name in names)
        self._options = dict(options or {})
        self._settings = dict(settings or {})
        self._discover = discover
        self._plugins: dict[str, _Plugin] = {}
        self._records: dict[tuple[str, str], PluginRecord] = {}
        self._strategies: Mapping[str, type[Strategy]] = types.MappingProxyType({})
        self._calls = BoundedCalls(self.report, hook_timeout)

    # -- filling -----------------------------------------------------------------------------

    def add(
        self, plugin: object, *, name: str | None = None, distribution: str = "", version: str = ""
    ) -> PluginRecord:
        """Add a plugin of this very process, with the same checks as an installed one.

        Args:
            plugin: a strategy class, or what implements hooks: a module, an object, or a class, which
                is then made once (with its options, if it has a dataclass named ``Options``).
            name: for hooks: what to call them; None: the module's or class's own name.
            distribution: what it belongs to, if it belongs to one.
            version: that one's version.

        Returns:
            Its record; its state is "loaded", or "disabled" if its name is.

        Raises:
            PluginError: it breaks the contract, or the name is taken. Nothing of it stays.
            ConfigError: its options are wrong.
        """
        made = _name_of(plugin, name)
        record = PluginRecord(
            made, PluginState.LOADED, distribution=distribution, version=version, target=_target_of(plugin)
        )
        if made in self._plugins:
            owner = next(r for r in self._records.values() if r.name == made and not r.error)
            raise PluginError(
                f"the name {made!r} is taken by {owner.source}, so {record.source} was not added; "
                "disable one of them, or rename yours"
            )
        if made in self._disable or (distribution and _canonical(distribution) in self._disable):
            record = replace(record, state=PluginState.DISABLED)
        else:
            record = self._admit(record, plugin)
        self._records[made, distribution] = record
        return record

    def load(self) -> None:
        """Find and load the installed plugins. A second call does nothing.

        Blocks: it reads the disk and imports foreign code. In a running event loop call it as
        ``await asyncio.to_thread(registry.load)``, and touch the registry only when that is done.

        Raises:
            ConfigError: an option given to this registry is wrong, or is for no plugin there is.
            KeyboardInterrupt: passes through.
        """
        if self._discover:
            self._discover = False
            self._load_installed()
        self._check_names_in_options()

    def _load_installed(self) -> None:
        from warpgate_core.plugins import discovery  # 15 ms that a mere import must not pay

        claims: dict[str, list[Candidate]] = defaultdict(list)
        for candidate in discovery.find():
            if candidate.name in self._disable or _canonical(candidate.distribution) in self._disable:
                self._keep(candidate, PluginState.DISABLED, "")
            else:
                claims[candidate.name].append(candidate)
        usable = [own[0] for own in claims.values() if self._is_unique(own)]
        for result in discovery.load(usable):
            candidate = result.candidate
            if result.error is not None:
                self._keep(candidate, PluginState.FAILED, str(result.error), result.seconds)
                continue
            record = replace(_record_of(candidate), seconds=result.seconds)
            try:
                if isinstance(result.plugin, type) and issubclass(result.plugin, Strategy):
                    _check_same_name(candidate, result.plugin)
                self._records[candidate.name, candidate.distribution] = self._admit(record, result.plugin)
            except ConfigError:
                raise  # the fault of who configured this node, not of the plugin
            except IncompatiblePluginError as error:
                self._keep(candidate, PluginState.INCOMPATIBLE, str(error), result.seconds)
            except PluginError as error:
                self._keep(candidate, PluginState.FAILED, str(error), result.seconds)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - objects that break when looked at
                self._keep(candidate, PluginState.FAILED, describe(error), result.seconds)

    def _is_unique(self, claims: list[Candidate]) -> bool:
        """Whether the name is one candidate's alone, and a proper name; else they are recorded."""
        first = claims[0]
        taken = self._plugins.get(first.name)
        if taken is not None:
            owner = next(r for r in self._records.values() if r.name == first.name)
            for one in claims:
                text = f"the name {one.name!r} is taken by {owner.source}; uninstall {one.distribution}"
                self._keep(one, PluginState.CONFLICT, text)
        elif len(claims) > 1:
            sources = " and ".join(sorted(f"{c.source} ({c.target})" for c in claims))
            text = (
                f"the name {first.name!r} is claimed by {sources}, so none was loaded; uninstall one, or "
                "disable one by the name of its distribution"
            )
            for number, one in enumerate(claims):
                self._keep(one, PluginState.CONFLICT, text, number=number)
        elif not is_valid_name(first.name):
            text = f"entry point name {first.name!r} is not lower-case words joined by '-', at most 24 long"
            self._keep(first, PluginState.FAILED, text)
        else:
            return True
        return False

    def _keep(
        self, candidate: Candidate, state: PluginState, error: str, seconds: float = 0.0, number: int = 0
    ) -> None:
        if state is not PluginState.DISABLED:
            log.warning("plugin %r of %s is not used: %s", candidate.name, candidate.source, error)
        record = replace(_record_of(candidate), state=state, error=error, seconds=seconds)
        key = candidate.distribution + "\0" * number  # one distribution may claim a name twice
        self._records[candidate.name, key] = record

    def _admit(self, record: PluginRecord, plugin: object) -> PluginRecord:
        """Check a plugin and take it in; on any error nothing of it stays."""
        name = record.name
        given = self._options.get(name)
        if isinstance(plugin, type) and issubclass(plugin, Strategy):
            spec = check_strategy(plugin)
            hooks = HookSet(name, plugin)
            options = parse_options(name, spec.options, given, self._settings)
            record = replace(record, kind=PluginKind.STRATEGY, spec=spec, hooks=hooks.names)
            self._plugins[name] = _Plugin(name, plugin, hooks if hooks.names else None, options)
            ranked = sorted(
                (p.strategy for p in self._plugins.values() if p.strategy),
                key=lambda cls: (cls.spec.rank, cls.spec.name),
            )
            self._strategies = types.MappingProxyType({cls.spec.name: cls for cls in ranked})
            return record
        check_api_version(getattr(plugin, "api_version", 1), f"plugin {name!r}")
        options_kind = options_type(plugin) if isinstance(plugin, type) else None
        options = parse_options(name, options_kind, given, self._settings)
        if isinstance(plugin, type):
            plugin = _make(plugin, options_kind, options)
        hooks = HookSet(name, plugin)
        if not hooks.names:
            raise PluginError(
                f"{_target_of(plugin)} is neither a strategy class nor does it implement a hook; derive from "
                "warpgate_core.Strategy, or mark a hook with @hookimpl"
            )
        self._plugins[name] = _Plugin(name, None, hooks, options)
        return replace(record, kind=PluginKind.HOOKS, hooks=hooks.names)

    def _check_names_in_options(self) -> None:
        known = {record.name for record in self._records.values()}
        for name in self._options:
            if name not in known:
                raise ConfigError(f"options are given for {name!r}, but {self._missing(name)}")
        for name in self._disable - known:
            if hint := did_you_mean(name, known):
                log.warning("%r is to be disabled but there is no such plugin.%s", name, hint)

    # -- asking ------------------------------------------------------------------------------

    @property
    def records(self) -> tuple[PluginRecord, ...]:
        """Every plugin there is, in whatever state, by name."""
        return tuple(self._records[key] for key in sorted(self._records))

    @property
    def strategies(self) -> Mapping[str, type[Strategy]]:
        """The strategies that can be used, best rank first. Read-only."""
        return self._strategies

    def create(self, name: str) -> Strategy:
        """Make the strategy object for one attempt, with its options.

        Raises:
            PluginError: there is no such strategy, or its own ``__init__`` raised.
        """
        cls = self.select((name,))[0]
        try:
            return cls(self._plugins[name].options)
        except (Exception, SystemExit) as error:
            self.report(name, "__init__", error)
            raise PluginError(f"strategy {name!r} cannot be made: {describe(error)}") from error

    def spec(self, name: str) -> StrategySpec:
        """The spec of a strategy that can be used.

        Raises:
            PluginError: there is no such strategy.
        """
        return self.select((name,))[0].spec

    def select(self, plugins: Iterable[str] | None = None) -> list[type[Strategy]]:
        """The strategies by these names, best rank first.

        Args:
            plugins: names; None: all there are.

        Raises:
            PluginError: one of them is not usable, or none is left; the text says why and what to do.
        """
        if plugins is None:
            if not self._strategies:
                states = ", ".join(f"{r.name} is {r.state}" for r in self.records) or "none is installed"
                raise PluginError(f"no strategy can be used: {states}")
            return list(self._strategies.values())
        wanted = {plugins} if isinstance(plugins, str) else set(plugins)
        if not wanted:
            raise PluginError("the list of plugins is empty; leave it out to use all of them")
        for name in sorted(wanted, key=str):
            if name not in self._strategies:
                raise PluginError(self._missing(name))
        return [cls for name, cls in self._strategies.items() if name in wanted]

    def _missing(self, name: str) -> str:
        """Why there is no strategy of that name, and what to do."""
        for record in self.records:
            if record.name != name:
                continue
            if record.state is PluginState.DISABLED:
                return f"plugin {name!r} is disabled (WARPGATE_DISABLE or NodeConfig.disable)"
            if record.state is PluginState.LOADED:
                return f"plugin {name!r} makes no connections itself; it works without being asked for"
            return f"plugin {name!r} of {record.source} cannot be used: {record.error}"
        known = ", ".join(self._strategies) or "none"
        text = f"there is no strategy {name!r} here; usable are: {known}."
        if name in _KNOWN:
            return f"{text} Install it: pip install {_KNOWN[name]}"
        return text + did_you_mean(str(name), [*self._strategies, *_KNOWN])

    # -- hooks -------------------------------------------------------------------------------

    def call(self, hook: str, /, **kwargs: Any) -> list[tuple[str, Any]]:
        """Call a synchronous hook of every plugin that implements it, each on its own.

        Args:
            hook: its name.
            kwargs: exactly its arguments.

        Returns:
            Plugin and result, None left out. A plugin that raises is reported and missing here.
        """
        return self._call(_spec(hook, kwargs, is_async=False), kwargs)

    async def call_async(self, hook: str, /, **kwargs: Any) -> list[tuple[str, Any]]:
        """Call an asynchronous hook of every plugin, side by side, each for `hook_timeout` at most.

        Args, Returns: see `call`.
        """
        return await self._calls.all(hook, self._call(_spec(hook, kwargs, is_async=True), kwargs))

    async def call_first(self, hook: str, /, **kwargs: Any) -> tuple[str, Any] | None:
        """Like `call_async`, but take the first result that is not None and cancel the others."""
        return await self._calls.first(hook, self._call(_spec(hook, kwargs, is_async=True), kwargs))

    def _call(self, spec: HookSpec, kwargs: Mapping[str, Any]) -> list[tuple[str, Any]]:
        results = []
        for plugin in tuple(self._plugins.values()):
            if plugin.hooks is None or spec.name not in plugin.hooks.names:
                continue
            try:
                found = plugin.hooks.call(spec.name, kwargs)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - reported; the others still count
                self.report(plugin.name, spec.name, error)
            else:
                results += [(plugin.name, result) for result in found]
        return results

    def report(self, name: str, what: str, error: BaseException) -> None:
        """Note in the log and in the record that a plugin failed while it was used.

        Args:
            name: the plugin.
            what: which of its functions.
            error: what it raised.
        """
        text = f"{what}: {describe(error)}"
        log.warning("plugin %r failed in %s", name, text)
        log.debug("plugin %r failed in %s", name, what, exc_info=error)
        for key, record in self._records.items():
            if record.name == name and record.state is PluginState.LOADED:
                self._records[key] = replace(record, failures=record.failures + 1, last_failure=text)


def _canonical(name: str) -> str:
    return name.strip().lower().replace("_", "-").replace(".", "-")


def _record_of(candidate: Candidate) -> PluginRecord:
    return PluginRecord(
        candidate.name,
        PluginState.LOADED,
        distribution=candidate.distribution,
        version=candidate.version,
        target=candidate.target,
    )


def _name_of(plugin: object, name: str | None) -> str:
    if isinstance(plugin, type) and issubclass(plugin, Strategy):
        own = check_strategy(plugin).name
        if name is not None and name != own:
            raise PluginError(f"strategy {own!r} cannot be added as {name!r}; its name is in @register")
        return own
    if plugin is None or isinstance(plugin, str | bytes | int | float | dict | list | tuple | set):
        raise PluginError(f"{plugin!r} is no plugin; add a strategy class, a module or an object with hooks")
    if name is not None:
        return name
    if isinstance(plugin, type | types.ModuleType):
        return plugin.__name__
    return type(plugin).__name__


def _target_of(plugin: object) -> str:
    if isinstance(plugin, types.ModuleType):
        return plugin.__name__
    kind = plugin if isinstance(plugin, type) else type(plugin)
    return f"{kind.__module__}:{kind.__qualname__}"


def _check_same_name(candidate: Candidate, cls: type[Strategy]) -> None:
    spec = check_strategy(cls)
    if spec.name != candidate.name:
        raise PluginError(
            f"entry point {candidate.name!r} holds the strategy {spec.name!r}; both must have the same name"
        )


def _make(cls: type, kind: type | None, options: Any) -> object:
    try:
        return cls() if kind is None else cls(options)
    except (Exception, SystemExit) as error:
        raise PluginError(f"{cls.__qualname__} cannot be made: {describe(error)}") from error


def _spec(hook: str, kwargs: Mapping[str, Any], *, is_async: bool) -> HookSpec:
    specs = hook_specs()
    if hook not in specs:
        raise PluginError(f"there is no hook {hook!r}.{did_you_mean(hook, specs)}")
    spec = specs[hook]
    if spec.is_async != is_async:
        raise PluginError(f"{hook!r} is {'' if spec.is_async else 'not '}asynchronous; use the other call")
    if set(kwargs) != set(spec.arguments):
        raise PluginError(f"{hook!r} takes {', '.join(spec.arguments)}, not {', '.join(kwargs) or 'nothing'}")
    return spec
