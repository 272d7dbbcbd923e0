"""Model cards: a page about an anonymizer, from what its class says and declares. Nothing in it is written by hand."""

import inspect
import re
from pathlib import Path

from bench.files import UserError, atomic_file
from bench.registry import ANONYMIZERS, BrokenPluginError, Plugin
from bench.report.listing import parameter_line
from bench.specs import describe_parameters

INDEX = "README.md"
_DECLARED = {
    "stochastic": ("random: the same clip comes out otherwise with another seed", "not random"),
    "learns": ("fitted to clips that no target tests", "not fitted to anything"),
    "causal": ("a released frame depends on no later one", "a released frame may depend on later ones"),
}


def card(plugin: Plugin) -> str:
    """Markdown about an anonymizer.

    Raises:
        UserError: if it cannot be loaded.
    """
    try:
        loaded = plugin.load()
    except BrokenPluginError as error:
        raise UserError(str(error)) from error
    parameters = [f"- `{parameter_line(entry)}`" for entry in describe_parameters(loaded)]
    lines = [
        f"# {plugin.name}",
        _markdown(inspect.getdoc(loaded) or "No description."),
        "## What it declares",
        "\n".join([*_declared(loaded), f"- code version {loaded.code_version}", f"- provider: {plugin.provider}"]),
        "## Parameters",
        "\n".join(parameters) or "None.",
        "## Before it is used",
        "Measured on whose clips, against whom and how sure: the leaderboard, or\n"
        f"`bench run --anonymizer {_example(plugin, loaded)}`. No method is private because its card says what it removes.",
    ]
    return "\n\n".join(lines) + "\n"


def _declared(loaded: type) -> list[str]:
    """A line for each thing that a class declares; a property depends on the parameters."""
    said = []
    for name, (yes, no) in _DECLARED.items():
        value = inspect.getattr_static(loaded, name)
        said.append(f"- {yes if value else no}" if isinstance(value, bool) else f"- {name}: depends on its parameters")
    uses = inspect.getattr_static(loaded, "uses")
    if isinstance(uses, tuple):
        said.append(f"- must know each clip's {' and '.join(uses)}" if uses else "- needs no labels of the clips it releases")
    return said


def _markdown(text: str) -> str:
    """A docstring as Markdown: the lines of a section such as `Args:` become a list."""
    found = []
    for line in text.splitlines():
        entry = re.fullmatch(r" {4}(\w+): (.*)", line)
        heading = re.fullmatch(r"(\w+):", line)
        found.append(f"**{heading[1]}**\n" if heading else f"- `{entry[1]}`: {entry[2]}" if entry else line.strip())
    return "\n".join(found)


def _example(plugin: Plugin, loaded: type) -> str:
    wrapped = {"chain": "gauss+smooth"}
    fields = [entry["name"] for entry in describe_parameters(loaded)]
    nests = len(fields) < len(inspect.signature(loaded).parameters)
    return wrapped.get(plugin.name, f"{plugin.name}:gauss" if nests else plugin.name)


def write_cards(folder: Path) -> int:
    """Writes a card for each built-in anonymizer, and an index.

    Returns:
        Number of cards.
    """
    plugins = [plugin for plugin in ANONYMIZERS.plugins() if plugin.provider == "builtin"]
    pages = {f"{plugin.name}.md": card(plugin) for plugin in plugins}
    links = [f"- [{plugin.name}]({plugin.name}.md): {_first(plugin)}" for plugin in plugins]
    pages[INDEX] = "# Anonymizers\n\nMade by `bench card all --out docs/anonymizers`.\n\n" + "\n".join(links) + "\n"
    for name, text in pages.items():
        with atomic_file(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return len(plugins)


def _first(plugin: Plugin) -> str:
    return " ".join((inspect.getdoc(plugin.load()) or "").split("\n\n")[0].split())
