"""The documents: every command in them is one that exists, links lead somewhere, cards are up to date."""

import importlib.util
import itertools
import re
import shlex
from pathlib import Path

import click
import pytest

from bench.cli import main
from bench.registry import ANONYMIZERS, ATTACKERS, DATASETS
from bench.report.card import write_cards
from bench.specs import parse_spec, parse_specs

ROOT = Path(__file__).resolve().parents[1]
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "results/README.md",
    "results/published/validation/README.md",
    "docs/anonymizers/README.md",
)
SPECS = {"anonymizer": ANONYMIZERS, "attacker": ATTACKERS, "dataset": DATASETS}


PROGRAMS = ("python", "pip", "pytest", "ruff", "sbatch", "apt", "git", "cd", "make")


def commands(text: str) -> list[str]:
    """Every command in a fenced block, comments cut off, and every one with arguments between backticks in running text.

    There a command without any is but its name, as in "the records that `bench run` writes".
    """
    blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    rest = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    lines += [code for code in re.findall(r"`([^`\n]+)`", rest) if has_arguments(code.split())]
    found = [piece.strip() for line in lines for piece in line.partition(" #")[0].split("&&")]
    return [line for line in dict.fromkeys(found) if line]


def has_arguments(words: list[str]) -> bool:
    """Whether a command has more than its name; of `bench`, more than those of its groups and commands."""
    command: click.Command | None = main
    if words[0] in PROGRAMS:
        return len(words) > 1
    if words[0] != "bench":
        return False
    for word in words[1:]:
        if not isinstance(command, click.Group):
            return True
        command = command.commands.get(word)
    return False


def check(line: str) -> None:
    """Parses a command without running it.

    Raises:
        click.ClickException, UserError: if a command, an option, a choice or a spec in it does not exist.
    """
    if line.startswith("python -m "):
        assert importlib.util.find_spec(line.split()[2]), f"No such module: {line}"
    if not line.startswith("bench "):
        return
    words = [word for word in shlex.split(line.replace("$(", "(")) if word != "..."][1:]
    command: click.Command = main
    context = click.Context(main, info_name="bench")
    while isinstance(command, click.Group) and words:
        name, found, words = command.resolve_command(context, words)
        command, context = found, click.Context(found, info_name=name, parent=context)
    options = {option: p for p in command.params for option in (*p.opts, *p.secondary_opts)}
    for word, following in itertools.zip_longest(words, words[1:], fillvalue=""):
        if word.startswith("--"):
            option, _, given = word.partition("=")
            if option not in options and option != "--help":
                raise click.NoSuchOption(option)
            value = given or following
            parameter = options.get(option)
            if parameter is not None and isinstance(parameter.type, click.Choice):
                parameter.type.convert(value, parameter, context)
            if parameter is not None and parameter.name in SPECS and value.isascii() and not value.isupper():
                parse = parse_spec if parameter.name == "dataset" else parse_specs
                parse(value, SPECS[parameter.name])


def all_commands() -> list[tuple[str, str]]:
    cards = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs/anonymizers").glob("*.md"))]
    pages = dict.fromkeys([*PAGES, *cards])
    return [(page, line) for page in pages for line in commands((ROOT / page).read_text(encoding="utf-8"))]


@pytest.mark.parametrize(("page", "line"), all_commands())
def test_a_command_in_the_documents_exists(page, line):
    check(line)


def test_there_are_commands_to_check():
    assert len(all_commands()) > 40


@pytest.mark.parametrize(
    "line",
    [
        "bench rnu",
        "bench run --anonymiser gauss",
        "bench run --anonymizer gaus",
        "bench submit new x --kind thing",
        "bench run --dataset utd-mad",
        "bench data prepair x",
        "python -m benchmarks.spede",
    ],
)
def test_a_wrong_command_is_found(line):
    """Negative control of the check above."""
    with pytest.raises(Exception, match=r"[Nn]o such|did you mean|no .* named|is not one of"):
        check(line)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    missing = [link for link in links if link and not (ROOT / page).parent.joinpath(link).exists()]
    assert missing == []


def test_python_in_the_documents_runs():
    """The example plugin of the README: defined, made from a spec's parameters, and applied."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    space: dict = {"__name__": "example"}
    exec(compile(code, "README.md", "exec"), space)
    from tests.anonymizers.samples import batch_of, noise_clips

    batch = batch_of(noise_clips())
    assert space["Shrink"](factor=0.25).transform(batch, {}).equal(batch.clips * 0.25)


def test_cards_are_up_to_date(tmp_path):
    """Anew by `bench card all --out docs/anonymizers`."""
    write_cards(tmp_path)
    made, kept = (
        {path.name: path.read_text(encoding="utf-8") for path in of.glob("*.md")} for of in (tmp_path, ROOT / "docs/anonymizers")
    )
    assert made == kept


def test_every_card_says_what_its_method_does():
    for plugin in (plugin for plugin in ANONYMIZERS.plugins() if plugin.provider == "builtin"):
        text = (ROOT / "docs/anonymizers" / f"{plugin.name}.md").read_text(encoding="utf-8")
        body = text.partition("\n\n")[2].partition("## What it declares")[0]
        assert len(body) > 40, plugin.name


def test_the_citation_agrees_with_the_package():
    import configparser

    import yaml

    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    package = configparser.ConfigParser()
    package.read(ROOT / "setup.cfg")
    assert cited["version"] == package["metadata"]["version"]
    assert cited["license"] == package["metadata"]["license"]
    assert {"cff-version", "message", "title", "authors"} <= set(cited)
