"""The registry: installed plugins sound and awkward, duplicates, disabling, selection, options."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fixtures.installed import PLUGINS, Install, installed
from warpgate_core.errors import ConfigError, PluginError
from warpgate_core.hookspecs import hookimpl
from warpgate_core.registry import PluginKind, PluginRecord, PluginState, Registry
from warpgate_core.strategy import Attempt, Strategy, register


@pytest.fixture
def install() -> Iterator[Install]:
    with installed() as function:
        yield function


@dataclass(frozen=True)
class NearOptions:
    depth: int = 3


@register("near", rank=10, options=NearOptions)
class Near(Strategy):
    """The nearest."""

    async def run(self, attempt: Attempt) -> None:
        await attempt.settled()


@register("far", rank=90)
class Far(Strategy):
    """The farthest."""

    async def run(self, attempt: Attempt) -> None:
        await attempt.settled()


def record_of(registry: Registry, name: str) -> PluginRecord:
    """The one record of that name."""
    (record,) = [r for r in registry.records if r.name == name]
    return record


# -- installed plugins -------------------------------------------------------------------------


def test_a_sound_plugin_is_loaded_with_everything_known_of_it(install: Install) -> None:
    install("sound")
    registry = Registry()
    registry.load()
    record = record_of(registry, "sound")
    assert record.state is PluginState.LOADED
    assert record.kind is PluginKind.STRATEGY
    assert (record.distribution, record.version) == ("awkward-sound", "1.0")
    assert record.target == "sound_plugin:Sound"
    assert record.hooks == ("warpgate_resolve",)
    assert record.error == ""
    assert record.seconds > 0
    assert registry.strategies["sound"].spec is record.spec
    assert record.as_dict()["rank"] == 70


AWKWARD = {
    "import_error": ("import-error", "failed", "a_library_that_nobody_has_installed"),
    "assertion": ("assertion", "failed", "only for Plan 9"),
    "sys_exit": ("sys-exit", "failed", r"sys\.exit\(3\)"),
    "strange_error": ("strange-error", "failed", r"Strange: \(its text cannot be shown\)"),
    "misspelt_hook": ("misspelt-hook", "failed", "Did you mean 'warpgate_resolve'"),
    "unmarked_hook": ("unmarked-hook", "failed", "not marked with @hookimpl"),
    "wrong_argument": ("wrong-argument", "failed", "no argument 'nam'. Did you mean 'name'"),
    "wrong_signature": ("wrong-signature", "failed", r"write `async def run\(self, attempt\)`"),
    "sync_strategy": ("sync-strategy", "failed", "must be a coroutine function"),
    "async_hook": ("async-hook", "failed", "plain def, not async"),
    "sync_hook": ("sync-hook", "failed", "must be written as async def"),
    "incompatible": ("incompatible", "incompatible", "contract 99.*Upgrade warpgate-core"),
    "wrong_name": ("one-name", "failed", "'another-name'"),
}


@pytest.mark.parametrize("folder", AWKWARD)
def test_an_awkward_plugin_is_a_record_and_harms_nobody(folder: str, install: Install) -> None:
    name, state, text = AWKWARD[folder]
    install(folder, "sound")
    registry = Registry()
    registry.load()
    record = record_of(registry, name)
    assert record.state == state
    assert record.distribution == "awkward-" + folder.replace("_", "-")
    assert record.error
    with pytest.raises(PluginError, match=text):
        registry.select([name])
    assert record_of(registry, "sound").state == "loaded"
    assert name not in registry.strategies


def test_all_awkward_plugins_at_once(install: Install, caplog: pytest.LogCaptureFixture) -> None:
    install(*sorted(path.name for path in PLUGINS.iterdir()))
    registry = Registry()
    registry.load()
    states = {record.name: record.state.value for record in registry.records}
    assert {name: states[name] for name, _, _ in AWKWARD.values()} == {
        name: state for name, state, _ in AWKWARD.values()
    }
    assert {n for n, s in states.items() if s == "loaded"} >= {
        "sound",
        "watcher",
        "uncancellable",
        "huge-section",
        "blocking",
        "raising-hook",
    }
    assert states["double"] == "conflict"
    for record in registry.records:  # whatever is not used was said once, with a reason
        if record.state is not PluginState.LOADED:
            assert record.error
            assert record.error in caplog.text


def test_targets_that_lead_nowhere(install: Install) -> None:
    install("bad_target")
    registry = Registry()
    registry.load()
    assert "not of the form package.module:Name" in record_of(registry, "bad-target").error
    assert "has no attribute 'Missing'" in record_of(registry, "no-attribute").error
    assert "lower-case words" in record_of(registry, "Bad_Name").error
    assert "neither a strategy class" in record_of(registry, "no-plugin").error
    assert not {"bad-target", "no-attribute", "Bad_Name", "no-plugin"} & registry.strategies.keys()


def test_an_unreadable_distribution_hides_no_other(
    install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    install("unreadable", "sound")
    registry = Registry()
    registry.load()
    assert record_of(registry, "sound").state == "loaded"
    assert "skipped an installed distribution" in caplog.text


def test_the_error_names_the_line_of_the_plugin(install: Install) -> None:
    install("assertion")
    registry = Registry()
    registry.load()
    assert "(awkward_assertion.py line 5)" in record_of(registry, "assertion").error


def test_ctrl_c_while_plugins_load_passes_through(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("sound")

    def interrupted(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("importlib.metadata.import_module", interrupted)
    registry = Registry()
    with pytest.raises(KeyboardInterrupt):
        registry.load()


def test_the_disk_cache_of_stevedore_is_neither_read_nor_written(tmp_path: Path) -> None:
    """Its times are too coarse: a plugin installed within a second of the last run stays unseen."""
    cache = tmp_path / "cache"
    code = (
        "from warpgate_core.registry import Registry\n"
        "registry = Registry()\nregistry.load()\n"
        "print([r.name for r in registry.records if r.name in ('sound', 'watcher')])"
    )
    env = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    seen = []
    for folders in (["sound"], ["sound", "watcher"]):
        env["PYTHONPATH"] = os.pathsep.join(str(PLUGINS / f) for f in folders)
        run = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        )
        seen.append(run.stdout.strip())
    assert seen == ["['sound']", "['sound', 'watcher']"]
    assert not list(cache.rglob("*"))


def test_importing_the_package_does_not_import_stevedore() -> None:
    """It costs 15 ms, and who only reads an address needs no plugins."""
    code = "import sys, warpgate_core; print('stevedore' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


# -- duplicates and disabling ------------------------------------------------------------------


def test_duplicates_that_are_not_neighbours_are_refused_both_and_named(install: Install) -> None:
    install("double_a", "sound", "double_b")
    registry = Registry()
    registry.load()
    both = [r for r in registry.records if r.name == "double"]
    assert [r.state for r in both] == [PluginState.CONFLICT] * 2
    assert [r.source for r in both] == ["awkward-double-a 1.0", "awkward-double-b 2.0"]
    for record in both:
        assert "awkward-double-a 1.0" in record.error
        assert "awkward-double-b 2.0" in record.error
    assert not {"awkward_double_a", "awkward_double_b"} & set(sys.modules)
    assert record_of(registry, "sound").state == "loaded"


def test_disabling_one_distribution_ends_the_conflict(install: Install) -> None:
    install("double_a", "double_b")
    registry = Registry(disable=["Awkward_Double.A"])
    registry.load()
    states = {r.distribution: r.state.value for r in registry.records if r.name == "double"}
    assert states == {"awkward-double-a": "disabled", "awkward-double-b": "failed"}


def test_the_same_distribution_twice_on_the_path_is_no_conflict(install: Install, tmp_path: Path) -> None:
    copy = tmp_path / "copy" / "awkward_sound-0.9.dist-info"
    copy.mkdir(parents=True)
    for file in (PLUGINS / "sound" / "awkward_sound-1.0.dist-info").iterdir():
        (copy / file.name).write_text(file.read_text().replace("1.0", "0.9"))
    install("sound", copy.parent)
    registry = Registry()
    registry.load()
    assert record_of(registry, "sound").version == "1.0"


def test_one_distribution_that_claims_a_name_twice_is_refused(install: Install, tmp_path: Path) -> None:
    info = tmp_path / "greedy" / "greedy-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: greedy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[warpgate.plugins]\ntwo = a.b:C\ntwo = a.b:D\n")
    install(info.parent)
    registry = Registry()
    registry.load()
    assert [r.state.value for r in registry.records if r.name == "two"] == ["conflict", "conflict"]


@pytest.mark.parametrize("word", ["sys-exit", "awkward-sys-exit", " SYS-EXIT "])
def test_disabled_plugins_are_not_imported(word: str, install: Install) -> None:
    install("sys_exit", "sound")
    registry = Registry(disable=[word])
    registry.load()
    assert record_of(registry, "sys-exit").state == "disabled"
    assert "awkward_sys_exit" not in sys.modules
    with pytest.raises(PluginError, match="disabled"):
        registry.select(["sys-exit"])
    assert record_of(registry, "sound").state == "loaded"


def test_a_misspelt_disable_is_mentioned(install: Install, caplog: pytest.LogCaptureFixture) -> None:
    install("sound")
    Registry(disable=["soud"]).load()
    assert "Did you mean 'sound'" in caplog.text


def test_an_installed_plugin_cannot_take_a_built_in_name(install: Install, tmp_path: Path) -> None:
    info = tmp_path / "thief" / "thief-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: thief\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[warpgate.plugins]\nnear = thief:Near\n")
    install(info.parent)
    registry = Registry()
    registry.add(Near, distribution="warpgate-core", version="1")
    registry.load()
    states = {r.distribution: (r.state.value, r.error) for r in registry.records if r.name == "near"}
    assert states["warpgate-core"] == ("loaded", "")
    assert states["thief"] == ("conflict", "the name 'near' is taken by warpgate-core 1; uninstall thief")
    assert registry.strategies["near"] is Near


# -- adding --------------------------------------------------------------------------------------


def test_strategies_come_by_rank_and_nodes_share_nothing() -> None:
    one, other = Registry(discover=False), Registry(discover=False)
    one.add(Far)
    record = one.add(Near)
    assert list(one.strategies) == ["near", "far"]
    assert record.source.endswith("test_registry:Near (added by this program)")
    assert not other.strategies
    with pytest.raises(TypeError):
        one.strategies["x"] = Near  # type: ignore[index]


def test_adding_a_taken_name_is_refused_with_both_names() -> None:
    registry = Registry(discover=False)
    registry.add(Near)
    again = register("near")(type("Again", (Near,), {}))
    with pytest.raises(PluginError, match=r"taken by .*:Near.* so .*:Again.* was not added"):
        registry.add(again)
    assert registry.strategies["near"] is Near


def test_a_disabled_built_in_is_not_used() -> None:
    registry = Registry(discover=False, disable=["near"])
    assert registry.add(Near).state is PluginState.DISABLED
    assert not registry.strategies
    with pytest.raises(PluginError, match="no strategy can be used: near is disabled"):
        registry.select()


@pytest.mark.parametrize("thing", [None, "near", 5, {"near": Near}, object(), object])
def test_what_is_no_plugin_is_refused_and_leaves_nothing(thing: object) -> None:
    registry = Registry(discover=False)
    with pytest.raises(PluginError):
        registry.add(thing)
    assert registry.records == ()


def test_a_class_that_only_inherits_a_spec_is_refused() -> None:
    class Child(Near):
        """Not registered itself."""

    with pytest.raises(PluginError, match="put @register"):
        Registry(discover=False).add(Child)


def test_misspelt_contribute_is_noticed() -> None:
    @register("typo")
    class Typo(Far):
        async def contribut(self, attempt: Attempt) -> bytes:
            return b""

    with pytest.raises(PluginError, match=r"contribut\(\), which nobody calls. Did you mean contribute\(\)"):
        Registry(discover=False).add(Typo)


def test_helpers_of_similar_names_are_allowed_beside_the_real_thing() -> None:
    @register("no-typo")
    class NoTypo(Far):
        async def contribute(self, attempt: Attempt) -> bytes:
            return await self.contribution()

        async def contribution(self) -> bytes:
            return b"x"

        def configure(self) -> None:
            return None

    assert Registry(discover=False).add(NoTypo).state is PluginState.LOADED


def test_a_strategy_without_run_or_with_a_strange_constructor_is_refused() -> None:
    registry = Registry(discover=False)

    @register("no-run")
    class NoRun(Strategy):
        """Never written."""

    with pytest.raises(PluginError, match=r"does not define run\(\)"):
        registry.add(NoRun)

    @register("greedy")
    class Greedy(Far):
        def __init__(self, options: object, more: object) -> None:
            super().__init__(options)

    with pytest.raises(PluginError, match="__init__ must take the options"):
        registry.add(Greedy)

    @register("close-arguments")
    class CloseArguments(Far):
        async def close(self, how: str) -> None:  # type: ignore[override]
            return None

    with pytest.raises(PluginError, match=r"async def close\(self\)"):
        registry.add(CloseArguments)

    @register("generator")
    class Generator(Far):
        async def run(self, attempt: Attempt):  # type: ignore[no-untyped-def]
            yield

    with pytest.raises(PluginError, match="must not yield"):
        registry.add(Generator)

    @register("not-plausible")
    class NotPlausible(Far):
        def plausible(self, role: object) -> frozenset[str]:  # type: ignore[override]
            return frozenset()

    with pytest.raises(PluginError, match="plausible"):
        registry.add(NotPlausible)
    assert registry.records == ()


def test_a_strategy_keeps_its_own_name() -> None:
    with pytest.raises(PluginError, match="cannot be added as 'else'"):
        Registry(discover=False).add(Near, name="else")


# -- selecting and creating ----------------------------------------------------------------------


def test_select_orders_by_rank_whatever_was_asked() -> None:
    registry = Registry(discover=False)
    registry.add(Far)
    registry.add(Near)
    assert registry.select() == [Near, Far]
    assert registry.select(["far", "near", "far"]) == [Near, Far]
    assert registry.select("far") == [Far]


def test_a_missing_strategy_is_explained() -> None:
    registry = Registry(discover=False)
    registry.add(Near)
    with pytest.raises(PluginError, match=r"usable are: near\. Install it: pip install warpgate-turn"):
        registry.select(["near", "turn"])
    with pytest.raises(PluginError, match="pip install warpgate-punch"):
        registry.select(["punch-tcp"])
    with pytest.raises(PluginError, match="Did you mean 'near'"):
        registry.select(["neer"])
    with pytest.raises(PluginError, match="the list of plugins is empty"):
        registry.select([])


def test_a_plugin_of_hooks_only_cannot_be_selected(install: Install) -> None:
    install("watcher")
    registry = Registry()
    registry.add(Near)
    registry.load()
    with pytest.raises(PluginError, match="makes no connections itself"):
        registry.select(["watcher"])


def test_the_hints_name_the_distributions_of_this_very_repository() -> None:
    from warpgate_core.registry import _KNOWN

    folders = {path.name for path in (Path(__file__).parents[2] / "plugins").iterdir()}
    assert set(_KNOWN.values()) == folders


def test_create_gives_fresh_objects_with_the_nodes_options() -> None:
    registry = Registry(discover=False, options={"near": {"depth": 5}})
    registry.add(Near)
    one, other = registry.create("near"), registry.create("near")
    assert one is not other
    assert isinstance(one, Near)
    assert one.options == NearOptions(5)
    default = Registry(discover=False)
    default.add(Near)
    assert default.create("near").options == NearOptions(3)


def test_a_constructor_that_raises_is_the_plugins_fault() -> None:
    @register("fragile")
    class Fragile(Far):
        def __init__(self, options: object = None) -> None:
            sys.exit(1)

    registry = Registry(discover=False)
    registry.add(Fragile)
    with pytest.raises(PluginError, match=r"'fragile' cannot be made: it called sys\.exit\(1\)"):
        registry.create("fragile")
    assert record_of(registry, "fragile").failures == 1


def test_wrong_options_are_the_callers_fault_at_once(install: Install) -> None:
    with pytest.raises(ConfigError, match="did you mean 'depth'"):
        Registry(discover=False, options={"near": {"dept": 1}}).add(Near)
    install("sound")
    with pytest.raises(ConfigError, match="did you mean 'patience'"):
        Registry(options={"sound": {"patienc": 1}}).load()
    with pytest.raises(ConfigError, match=r"'soud', but there is no strategy.*Did you mean 'sound'"):
        Registry(options={"soud": {}}).load()
    with pytest.raises(ConfigError, match="pip install warpgate-turn"):
        Registry(discover=False, options={"turn": {}}).load()


def test_options_for_a_disabled_plugin_wait_for_better_days(install: Install) -> None:
    install("sound")
    Registry(disable=["sound"], options={"sound": {"patience": 2}}).load()


def test_loading_twice_is_loading_once(install: Install) -> None:
    install("sound")
    registry = Registry()
    registry.load()
    before = registry.records
    registry.load()
    assert registry.records == before


def test_every_use_of_a_plugin_that_fails_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    registry = Registry(discover=False)
    registry.add(Near)
    with caplog.at_level(logging.WARNING, "warpgate.plugins"):
        registry.report("near", "run", ValueError("one\ntwo"))
        registry.report("near", "run", ValueError("x" * 1000))
    record = record_of(registry, "near")
    assert record.failures == 2
    assert record.last_failure.startswith("run: ValueError: xxx")
    assert len(record.last_failure) < 500
    assert "run: ValueError: one two" in caplog.text


def test_a_strategys_hooks_must_not_need_an_object_of_it() -> None:
    @register("hooked")
    class Hooked(Far):
        @hookimpl
        async def warpgate_resolve(self, name: str) -> None:
            return None

    with pytest.raises(PluginError, match="must be a static or class method"):
        Registry(discover=False).add(Hooked)
