"""The documents: every command in them is one that exists, the quick ones run, links lead somewhere, cards are up to date."""

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
from tests.tiny import RUN, bench, shrink_budget

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", "results/README.md", "results/validation/README.md")
SPECS = {"anonymizer": ANONYMIZERS, "attacker": ATTACKERS, "dataset": DATASETS}


def commands(text: str) -> list[str]:
    """Every `bench ...` in a fenced block, comments cut off, and in running text between backticks."""
    blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    lines += re.findall(r"`(bench [a-z][^`\n]*)`", text)
    found = [piece.strip() for line in lines for piece in line.partition(" #")[0].split("&&")]
    return list(dict.fromkeys(line for line in found if line.startswith("bench ")))


def check(line: str) -> None:
    """Parses a command without running it.

    Raises:
        click.ClickException, UserError: if a command, an option, a choice or a spec in it does not exist.
    """
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
    return [(page, line) for page in PAGES for line in commands((ROOT / page).read_text(encoding="utf-8"))]


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


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    results = tmp_path_factory.mktemp("docs")
    with pytest.MonkeyPatch.context() as patch:
        shrink_budget(patch)
        assert bench(*RUN, results=results).exit_code == 0
        yield results


QUICK = (
    "bench table",
    "bench table --compare null gauss:std=0.1",
    "bench plot pareto",
    "bench status",
    "bench doctor",
    "bench store verify",
    "bench leaderboard",
    "bench leaderboard --explain gauss:std=0.1",
    "bench submit status",
)


@pytest.mark.parametrize("line", QUICK)
def test_a_quick_command_of_the_documents_runs(finished, line):
    done = bench(*line.split()[1:], results=finished)
    assert done.exit_code == 0, done.output
    assert done.output.strip()


def test_quick_commands_are_in_the_documents():
    known = {" ".join(line.split()[1:3]) for _, line in all_commands()}
    for line in QUICK:
        assert any(other.startswith(line.split()[1]) for other in known), line


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
    for plugin in ANONYMIZERS.plugins():
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
