import importlib.metadata

import pytest

from bench import registry
from bench.registry import AmbiguousPluginError, BrokenPluginError, Registry, UnknownPluginError


class FakeDistribution:
    def __init__(self, name, version):
        self.name, self.version = name, version


def entry_point(name, value, dist=("acme-anon", "2.0")):
    point = importlib.metadata.EntryPoint(name, value, "skeleton_privacy_bench.things")
    vars(point).update(dist=FakeDistribution(*dist))
    return point


@pytest.fixture
def outside(monkeypatch):
    points = []
    monkeypatch.setattr(registry, "entry_points", lambda group: [p for p in points if p.group == group])
    return points


def test_builtin_plugin_is_found_and_loaded_lazily(outside):
    things = Registry("thing", "things", {"ordered": "collections:OrderedDict", "broken": "no.such.module:X"})
    assert things.names() == ["ordered", "broken"]
    assert things["ordered"].load().__name__ == "OrderedDict"
    assert things["ordered"].provider == "builtin"
    with pytest.raises(BrokenPluginError, match=r"thing 'broken' \(builtin\) cannot be loaded from no.such.module:X"):
        things["broken"].load()


def test_plugin_of_another_distribution_states_its_provider(outside):
    outside.append(entry_point("shuffle", "random:shuffle"))
    plugin = Registry("thing", "things", {})["shuffle"]
    assert plugin.provider == "acme-anon 2.0"
    assert callable(plugin.load())


def test_builtin_names_are_reserved(outside):
    outside.append(entry_point("ordered", "random:shuffle"))
    things = Registry("thing", "things", {"ordered": "collections:OrderedDict"})
    assert [p.provider for p in things.plugins()] == ["builtin"]


def test_two_providers_of_one_name_are_refused(outside):
    outside += [entry_point("a", "random:shuffle"), entry_point("a", "random:choice", ("other", "1"))]
    with pytest.raises(AmbiguousPluginError, match="and by other 1"):
        Registry("thing", "things", {})["a"]


def test_misspelt_name_gets_a_suggestion_and_a_strange_one_gets_the_list(outside):
    things = Registry("thing", "things", {"ordered": "collections:OrderedDict"})
    with pytest.raises(UnknownPluginError, match="no thing named 'orderd'; did you mean ordered"):
        things["orderd"]
    with pytest.raises(UnknownPluginError, match="there are ordered"):
        things["zzz"]


@pytest.mark.parametrize("name", ["ANONYMIZERS", "ATTACKERS", "BACKBONES", "DATASETS"])
def test_every_builtin_plugin_loads_and_says_what_it_is(name):
    for plugin in getattr(registry, name).plugins():
        assert plugin.load().__doc__, plugin.name
        assert plugin.name == plugin.name.lower()
