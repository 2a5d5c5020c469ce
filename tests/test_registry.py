"""Plugins: found without imports, loaded alone, blamed by name; real files on a real path."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ark_framework import ConfigError, LabelSchema, PluginError, hookimpl
from ark_framework.cli import run
from ark_framework.events import CycleFinished
from ark_framework.registry import GROUP, canonical, discover, load, parse_options

Install = Callable[..., str]
PLUGIN = """
from pathlib import Path
from pydantic import BaseModel
from ark_framework import DatasetCard, DatasetSpec, LabelSchema, hookimpl

class Options(BaseModel):
    root: Path
    fold: int = 0

def dataset(name, schema="{name}-schema"):
    return DatasetSpec(
        name=name, schema=schema, options=Options, read=lambda o: 1 / 0, fixture=lambda f: None,
        card=DatasetCard(title="t", home="h", licence="CC0", access="open", citation="c"),
    )

@hookimpl
def ark_label_schemas():
    return [LabelSchema(name="{name}-schema", kind="multilabel", labels=("a", "b"))]

@hookimpl
def ark_datasets():
    return [dataset("{name}-z"), dataset("{name}-a")]
"""
BROKEN = {
    "import error": ("import nowhere_at_all", "cannot be imported: ModuleNotFoundError"),
    "exit at import": ("raise SystemExit(3)", "cannot be imported: SystemExit: 3"),
    "misspelt hook": (
        "from ark_framework import hookimpl\n@hookimpl\ndef ark_dataset(): return []",
        "implements 'ark_dataset', which is no hook; did you mean 'ark_datasets'?",
    ),
    "misspelt and undecorated": ("def ark_haeds(): return []", "did you mean 'ark_heads'?"),
    "undecorated": ("def ark_heads(): return []", "defines 'ark_heads' without @hookimpl"),
    "wrong return type": (
        "from ark_framework import hookimpl\n@hookimpl\ndef ark_heads(): return {'linear': 1}",
        "returned dict from ark_heads(), not a list of HeadSpec",
    ),
    "wrong entry type": (
        "from ark_framework import hookimpl\n@hookimpl\ndef ark_heads(): return ['linear']",
        "returned a list with str from ark_heads(), not HeadSpec",
    ),
    "raises": (
        "from ark_framework import hookimpl\n@hookimpl\ndef ark_heads(): return 1 / 0",
        "failed in ark_heads(): ZeroDivisionError",
    ),
    "duplicate name": (
        "from ark_framework import HeadSpec, hookimpl\n@hookimpl\ndef ark_heads():\n"
        "    return [HeadSpec(name='linear', kinds=('multilabel',), build=print)]",
        "provides head 'linear', which is provided by ark-builtin (ark-framework",
    ),
    "wrong arguments": (
        "from ark_framework import hookimpl\n@hookimpl\ndef ark_run_started(evnt): pass",
        "has a hook that does not fit",
    ),
    "wrapper": (
        "from ark_framework import hookimpl\n@hookimpl(wrapper=True)\n"
        "def ark_run_started(event): return (yield)",
        "as a wrapper",
    ),
}


@pytest.fixture
def install(install: Install) -> Install:
    """Install a small plugin, unless the test has code of its own."""

    def write(name: str, code: str = PLUGIN, **more: str | None) -> str:
        return install(name, code, **more)

    return write


@pytest.mark.parametrize(
    "name", ["vindr", "ark-vindr", "ark-plugin-vindr", "ark_plugin_vindr", " ARK_Plugin-VinDr "]
)
def test_names(name: str) -> None:
    """Whatever a plugin is called, it is one plugin."""
    assert canonical(name) == "ark-vindr"


@given(st.from_regex(r"[a-z0-9]+(-[a-z0-9]+)*", fullmatch=True))
def test_names_are_stable(name: str) -> None:
    """A canonical name is its own canonical name."""
    assert canonical(canonical(name)) == canonical(name)


def test_discovery_imports_nothing(install: Install) -> None:
    """Plugins are listed by name with their distribution; another major with the reason."""
    modules = [install("zeta"), install("beta", group="ark_framework.v2")]
    records = {record.name: record for record in discover()}
    assert list(records) == sorted(records)
    assert (records["ark-zeta"].distribution, records["ark-zeta"].version) == (
        "ark-plugin-zeta",
        "1.5",
    )
    assert records["ark-zeta"].problem is None
    assert records["ark-beta"].api == "v2"
    assert "speaks v1" in str(records["ark-beta"].problem)
    assert not set(modules) & set(sys.modules)


def test_order(install: Install) -> None:
    """Datasets come in plugins' typed order, then declared order; twice named is once."""
    install("one")
    install("two")
    registry = load(["two", "ark-plugin-one", "ark_two"])
    assert list(registry.datasets) == ["two-z", "two-a", "one-z", "one-a"]
    assert [record.name for record in registry.plugins] == ["ark-builtin", "ark-two", "ark-one"]
    assert registry.origin("dataset", "one-a").distribution == "ark-plugin-one"
    with pytest.raises(TypeError):
        registry.datasets["new"] = registry.datasets["one-a"]  # type: ignore[index]


@pytest.mark.parametrize("how", BROKEN)
def test_broken_and_named(install: Install, how: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A broken plugin that is named: one line with name, version and cause, exit 4."""
    code, cause = BROKEN[how]
    install("bad", code)
    with pytest.raises(PluginError) as caught:
        load(["bad"])
    assert cause in str(caught.value)
    assert str(caught.value).startswith("plugin ark-bad (ark-plugin-bad 1.5) ")
    assert run(["data", "list", "--plugins", "bad"]) == 4
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert said.err.startswith("error: plugin ark-bad (ark-plugin-bad 1.5) ")


@pytest.mark.parametrize("how", BROKEN)
def test_broken_and_not_named(install: Install, how: str) -> None:
    """A broken plugin that is not named is not imported and changes nothing."""
    before = load([])
    module = install("bad", BROKEN[how][0])
    install("good")
    registry = load(["good"])
    assert list(registry.datasets) == ["good-z", "good-a"]
    assert list(registry.heads) == list(before.heads)
    assert module not in sys.modules
    assert run(["plugins", "list"]) == 0


def test_other_major(install: Install, capfd: pytest.CaptureFixture[str]) -> None:
    """A plugin for another API major is never imported; named, it says what to install."""
    module = install("next", group="ark_framework.v2")
    install("good")
    assert list(load(["good"]).datasets) == ["good-z", "good-a"]
    assert run(["plugins", "show", "next"]) == 4
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert "ark-next (ark-plugin-next 1.5) was built for plugin API v2" in said
    assert "install an ark-framework that speaks v2" in said
    assert module not in sys.modules


def test_two_distributions_of_one_name(install: Install) -> None:
    """Two distributions with one entry-point name: named, both are told; unnamed, no matter."""
    install("twin")
    install("twin", distribution="someone-elses-twin")
    assert not load([]).datasets
    with pytest.raises(PluginError, match="ark-plugin-twin, someone-elses-twin"):
        load(["twin"])


def test_one_name_from_two_plugins(install: Install) -> None:
    """A dataset that two named plugins provide stops the run and names both."""
    install("one")
    install("other", PLUGIN.replace("{name}-z", "one-z"))
    with pytest.raises(
        PluginError, match=r"ark-other \(.*dataset 'one-z'.* ark-one \(ark-plugin-o"
    ):
        load(["one", "other"])
    assert "one-z" in load(["other"]).datasets


def test_unreadable_metadata(install: Install, tmp_path: Path) -> None:
    """A mangled entry_points.txt is listed with its problem and disturbs nobody."""
    module = install("mangled")
    entries = tmp_path / "site" / f"{module}-1.5.dist-info" / "entry_points.txt"
    entries.write_text(f"[{GROUP}]\nno equals sign\n", encoding="utf-8")
    install("good")
    assert "good-z" in load(["good"]).datasets
    problems = {record.name: record.problem for record in discover() if record.problem}
    assert list(problems) == ["ark-mangled"]
    with pytest.raises(PluginError, match="entry_points"):
        load(["mangled"])


def test_not_installed(install: Install) -> None:
    """An unknown name is a usage error with the nearest name and the pip line."""
    install("vindr")
    with pytest.raises(ConfigError) as caught:
        load(["ark-vinder"])
    assert "pip install ark-plugin-vinder" in str(caught.value)
    assert "did you mean 'vindr'?" in str(caught.value)
    assert run(["plugins", "show", "vinder"]) == 2


@pytest.mark.parametrize("value", ["all", "other, ark_plugin_ONE"])
def test_disabled(install: Install, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """ARK_DISABLE_PLUGINS blocks third parties, by name or all of them, and never the built-ins."""
    module = install("one")
    monkeypatch.setenv("ARK_DISABLE_PLUGINS", f"{value},ark-builtin")
    assert "linear" in load([]).heads
    with pytest.raises(PluginError, match="disabled by ARK_DISABLE_PLUGINS"):
        load(["one"])
    assert module not in sys.modules


def test_lookups(install: Install) -> None:
    """A wrong name gets the nearest one, a wrong kind is told with the kinds that are served."""
    install("one")
    registry = load(["one"])
    assert registry.dataset("one-a").name == "one-a"
    for look, message in (
        (lambda: registry.dataset("one-aa"), "did you mean 'one-a'"),
        (lambda: registry.backbone("tinny"), "did you mean 'tiny'?"),
        (lambda: registry.head("lineal", kind="multilabel"), "did you mean 'linear'?"),
        (lambda: registry.head("linear", kind="mask"), "multilabel, multiclass, not mask"),
        (lambda: registry.loss("mse", kind="multilabel"), "'mse' serves consistency"),
    ):
        with pytest.raises(ConfigError, match=message):
            look()


def test_schemas(install: Install) -> None:
    """A dataset's schema is its own, a registered name, or made from its options."""
    own = "LabelSchema(name='own', kind='mask', labels=('lung',))"
    code = PLUGIN.replace(
        'dataset("{name}-a")',
        f'dataset("made", lambda o: {own} if o else 1 / 0), dataset("lost", "nobodys")',
    )
    install("one", code)
    registry = load(["one"])
    assert registry.schema_of(registry.dataset("one-z")).labels == ("a", "b")
    made = registry.schema_of(registry.dataset("made"), options=1)
    assert made == LabelSchema(name="own", kind="mask", labels=("lung",))
    with pytest.raises(PluginError, match=r"ark-one .*ZeroDivisionError"):
        registry.schema_of(registry.dataset("made"))
    with pytest.raises(ConfigError, match="no label schema 'nobodys'"):
        registry.schema_of(registry.dataset("lost"))


def test_options(install: Install, tmp_path: Path) -> None:
    """A plugin's options are checked by its own type; a typo is refused even where it would not."""
    install("one")
    spec = load(["one"]).dataset("one-a")
    parsed = parse_options(spec, {"root": str(tmp_path), "fold": 2}, "data.one-a")
    assert parsed.model_dump() == {"root": tmp_path, "fold": 2}
    for values, message in (
        ({"root": "x", "flod": 2}, "data.one-a: unknown key 'flod'; did you mean 'fold'?"),
        ({}, "data.one-a: 'root' is required"),
        ({"root": "x", "fold": "two"}, "data.one-a: fold = 'two'"),
    ):
        with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
            parse_options(spec, values, "data.one-a")


class Watcher:
    """An observer that writes down what it saw, and fails if it is told to."""

    def __init__(self, *, fails: bool = False) -> None:
        self.seen: list[int] = []
        self.fails = fails

    @hookimpl
    def ark_cycle_finished(self, event: CycleFinished) -> None:
        self.seen.append(event.cycle)
        if self.fails:
            raise ValueError("disk\nfull")


def test_failing_observer(install: Install, caplog: pytest.LogCaptureFixture) -> None:
    """A failing observer is warned of once, with its name, and detached; the others go on."""
    code = "\n@hookimpl\ndef ark_cycle_finished(event):\n    raise KeyError('mine')\n"
    install("one", PLUGIN + code)
    plain = load(["one"])
    good, bad, late = Watcher(), Watcher(fails=True), Watcher()
    registry = plain.with_observers(good, bad, late)
    with caplog.at_level(logging.WARNING):
        for cycle in range(3):
            registry.notify("ark_cycle_finished", CycleFinished(step=1, cycle=cycle))
    assert good.seen == late.seen == [0, 1, 2]
    assert bad.seen == [0]
    warnings = sorted(record.getMessage() for record in caplog.records)
    assert len(warnings) == 2
    assert "observer Watcher failed in ark_cycle_finished and is detached" in warnings[0]
    assert "ValueError: disk full" in warnings[0]
    assert "observer ark_plugin_one failed" in warnings[1]


def test_observers_are_for_one_run(install: Install) -> None:
    """Observers of one run are not those of the next."""
    install("one")
    plain, watcher = load(["one"]), Watcher()
    with_one = plain.with_observers(watcher)
    plain.notify("ark_cycle_finished", CycleFinished(step=1, cycle=7))
    assert watcher.seen == []
    with_one.notify("ark_cycle_finished", CycleFinished(step=1, cycle=8))
    assert watcher.seen == [8]


def test_misspelt_observer() -> None:
    """An observer whose hook there is not would never be called, so it is refused."""

    class Deaf:
        @hookimpl
        def ark_cycle_ended(self, event: CycleFinished) -> None: ...

    with pytest.raises(PluginError, match=r"observer Deaf.*ark_cycle_ended"):
        load([]).with_observers(Deaf())


def test_failing_reader(install: Install) -> None:
    """What a plugin's own code raises while it is used is blamed on the plugin."""
    install("one")
    registry = load(["one"])
    reader = registry.dataset("one-a")
    with (
        pytest.raises(PluginError, match=r"ark-one .* failed in read\(\): ZeroDivisionError"),
        registry.blaming("dataset", "one-a", "read()"),
    ):
        reader.read(None)
