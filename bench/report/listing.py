"""What `bench list` prints: one line a plugin, its parameters with units below; one line a layout, its joints below."""

import inspect
from typing import Any

from bench.registry import ANONYMIZERS, ATTACKERS, BACKBONES, DATASETS, INVERTERS, BrokenPluginError, Registry
from bench.skeleton import Layout, get_layout, layout_names
from bench.specs import Parameters, describe_parameters

_REGISTRIES: dict[str, Registry] = {
    "anonymizers": ANONYMIZERS,
    "attackers": ATTACKERS,
    "backbones": BACKBONES,
    "inverters": INVERTERS,
    "datasets": DATASETS,
}


def listing(kind: str) -> str:
    """Text for one kind of plugin, or for the layouts."""
    lines = _plugin_lines(_REGISTRIES[kind]) if kind in _REGISTRIES else _layout_lines()
    return "\n".join([kind, *lines]) + "\n"


def _plugin_lines(registry: Registry) -> list[str]:
    """One line a plugin, its parameters below; a plugin that cannot be loaded says why."""
    lines = []
    plugins = registry.plugins()
    width = max(len(plugin.name) for plugin in plugins)
    for plugin in plugins:
        origin = "" if plugin.provider == "builtin" else f"  [{plugin.provider}]"
        try:
            loaded = plugin.load()
        except BrokenPluginError as error:
            lines.append(f"  {plugin.name:<{width}}  CANNOT BE LOADED: {error}{origin}")
            continue
        lines.append(f"  {plugin.name:<{width}}  {_summary(loaded)}{_declared(loaded)}{origin}")
        if issubclass(loaded, Parameters):
            lines += [f"  {'':<{width}}    {parameter_line(entry)}" for entry in describe_parameters(loaded)]
    return lines


def _layout_lines() -> list[str]:
    """One line a layout, its joints below: index on the joint axis of a clip, name, and the joint on which it hangs."""
    frame = "  metres, right-handed: x to the right of a person who faces the sensor; a joint at exactly 0, 0, 0 is missing"
    return [frame, *(line for name in layout_names() for line in _joint_lines(get_layout(name)))]


def _joint_lines(layout: Layout) -> list[str]:
    names = layout.joints
    spine, shoulders = (" to ".join(names[joint] for joint in pair) for pair in (layout.spine, layout.shoulders))
    use = f"centred on {names[layout.centre]}; turned by {spine} (up) and {shoulders}"
    width = max(map(len, names))
    parents = ["root" if parent == joint else f"on {names[parent]}" for joint, parent in enumerate(layout.parents)]
    joints = [f"    {j:>2}  {name:<{width}}  {parents[j]}" for j, name in enumerate(names)]
    return [f"  {layout.name}  {len(names)} joints; {use}", *joints]


def _summary(plugin: type) -> str:
    text = inspect.getdoc(plugin) or "no description"
    return " ".join(text.split("\n\n")[0].split())


def _declared(plugin: type) -> str:
    """What an anonymizer says about itself; what depends on its parameters is left out."""
    said = {"stochastic": "random", "learns": "fitted to clips", "causal": "frame by frame"}
    words = [word for name, word in said.items() if getattr(plugin, name, False) is True]
    uses = getattr(plugin, "uses", ())
    words += [f"must know each clip's {' and '.join(uses)}"] if isinstance(uses, tuple) and uses else []
    return f" ({', '.join(words)})" if words else ""


def parameter_line(entry: dict[str, Any]) -> str:
    """A declared parameter with default, unit, range and meaning."""
    unit = f" {entry['unit']}" if entry.get("unit") else ""
    low, high = entry.get("minimum"), entry.get("maximum")
    limits = [f">= {low}" if low is not None else "", f"<= {high}" if high is not None else ""]
    limits += [f"one of {', '.join(map(str, entry['choices']))}" if entry.get("choices") else ""]
    allowed = f" ({', '.join(filter(None, limits))})" if any(limits) else ""
    default = entry["default"] if entry["default"] != "" else '""'
    return f"{entry['name']}={default}{unit}{allowed}: {entry.get('doc', '')}"
