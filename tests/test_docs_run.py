"""Every command in the documents is run, on small data with small budgets, or listed with the reason why not.

Options that make it small are added at the end, where they go before those that are written; nothing else is changed but what the
documents leave open (`STANDS_FOR`).
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from bench.cli import main
from bench.records import records
from bench.submission.isolation import probe
from bench.submission.session import close_all
from bench.submission.template import new_submission
from tests.test_docs import PAGES, ROOT, commands
from tests.tiny import DATA, HERE, shrink_budget

FEW = ["--threat", "ignorant", "--seeds", "1", "--no-controls", "--no-mlflow", *HERE]
ONE = ["--anonymizer", "gauss:std=0.1", "--attacker", "bones-lda", *FEW]
SMALL = ["--dataset", DATA]
STANDS_FOR = {"FILE": "rows.csv", "NAME": DATA, "X": "bones-lda"}

# On the records of a small grid.
VIEWS = {
    "bench table": [],
    "bench table --compare mean-skeleton gauss:std=0.05": [],
    "bench table --csv FILE": [],
    "bench plot pareto": [],
    "bench leaderboard": [],
    "bench leaderboard --explain mean-skeleton": [],
    "bench leaderboard --html pages": [],
    "bench leaderboard --publish tables": [],
    "bench leaderboard --publish results/published": [],
    "bench list": [],
    "bench list layouts": [],
    "bench run --dry-run": SMALL,
    "bench card mean-skeleton": [],
    "bench card all --out docs/anonymizers": [],
    "bench doctor": [],
    "bench status": [],
    "bench explain RECORD": [],
    "bench store verify": [],
    "bench store drop --attacker X --dry-run": [],
    "bench plan --attacker all --threat all": SMALL,
    "bench plan --config grid.toml --jobs jobs": [*SMALL, "--seeds", "1"],
}
# Each of them in a folder of its own, one after the other.
STORIES = {
    "run": {
        "bench run": [*SMALL, *ONE],
        "bench run --anonymizer identity,gauss:std=0.1 --attacker shiftgcn-reid,bones-lda --threat semi-informed": [
            *SMALL,
            *("--attacker", "bones-lda", "--seeds", "1", "--no-controls", "--no-mlflow", *HERE),
        ],
        "bench run --attacker all --threat all": [*SMALL, *ONE],
        "bench run --config results/published/reid.toml --dataset NAME": ONE,
        "bench audit --sample 3": HERE,
        "bench mlflow sync": [],
    },
    "own data": {
        "bench data prepare own:joints=kinect-v1,rate=30 --source path/to/folder": [],
        "bench run --dataset own": ONE,
        "bench run --dataset own --anonymizer mean-skeleton --attacker all --threat all --seeds 3 --preset standard": [
            *("--attacker", "bones-lda", *FEW, "--preset", "quick"),
        ],
        "bench data check own": [],
        "bench anonymize --dataset own --preset standard --anonymizer mean-skeleton --out released": [],
    },
    "real data": {
        "bench data prepare utd-mhad --source path/to/UTD-MHAD": [],
        "bench data info utd-mhad": [],
        "bench data check utd-mhad": [],
        "bench run --dataset utd-mhad --attacker shiftgcn-reid,bones-lda": ONE,
        "bench run --dataset utd-mhad --anonymizer identity,null --attacker all --threat semi-informed": ONE,
    },
    "release": {
        "bench view --anonymizer mean-skeleton,gauss --out clips.gif": SMALL,
        "bench anonymize --anonymizer mean-skeleton --out released": SMALL,
        "bench anonymize --anonymizer adversarial --out released2 --save-weights fitted": SMALL,
        "bench anonymize --weights fitted --out released3": SMALL,
    },
    "submit": {
        "bench submit new my-method --kind anonymizer": [],
        "bench submit new my-attack --kind attacker": [],
        "bench submit check my-method": [],
        "bench submit seal my-method": [],
        "bench submit export my-networks --attacker sgn-reid --dataset utd-mhad": [
            *("--dataset", "synthetic:people=6,motions=3,cameras=1", "--device", "cpu"),
        ],
        "bench submit evaluate my-method --dataset synthetic --seeds 3": [
            *("--dataset", "synthetic:people=6,motions=3,cameras=1", "--seeds", "1", "--attacker", "bones-lda"),
            *("--threat", "semi-informed", "--no-mlflow", *HERE),
        ],
        "bench submit status my-method": [],
    },
}
CI = ".ci/run does it as written, in a fresh environment"
SPEED = "measures speed for minutes, and needs a machine that does nothing else"
NOT_RUN = {
    "pip install -c constraints.txt -e .": CI,
    "pip install -c constraints.txt -e '.[test]'": CI,
    "pip install -c constraints.txt -e '.[ray]'": "needs a network; the extra `test` holds the same package",
    "apt install bubblewrap": "needs a network and the rights of an administrator",
    "pytest": CI,
    "pytest -m slow --dist worksteal": CI,
    "ruff check .": CI,
    "ruff format --check .": CI,
    "bench validate --quick": "minutes; tests/bench/test_validation.py runs it",
    "bench validate --out results/published/validation": "long; tests/bench/test_validation.py runs the quick one",
    "bench ui": "serves until it is stopped",
    "[ -e jobs/0000.json ]": "part of the line for Slurm, which tests/bench/test_plan.py runs",
    "sbatch --array=0-$(($(ls jobs/*.json | wc -l) - 1)) --gpus=1 "
    "--wrap='bench job jobs/$(printf %04d $SLURM_ARRAY_TASK_ID).json'": (
        "needs a cluster; tests/bench/test_plan.py runs `bench job` on every file that `bench plan --jobs` writes"
    ),
    "python -m benchmarks.backbones --backbone ms-g3d": SPEED,
    "python -m benchmarks.data": SPEED,
    "python -m benchmarks.batches": SPEED,
    "python -m benchmarks.fuzz": "looks for defects for as long as it is let",
}
# Of the README of a submission's template; `test_projects_are_installed_listed_and_run_as_plugins` runs them, but for the check:
# tests/bench/test_submission.py checks a project of each kind.
OF_TEMPLATES = ("pytest", "bench submit seal .", "bench submit check .", "pip install .", "bench list {group}")


def unknown(lines: Sequence[str]) -> list[str]:
    """Commands that are neither run nor in the list of those that are not."""
    run = {*VIEWS, *OF_TEMPLATES, *(line for story in STORIES.values() for line in story)}
    return [line for line in lines if line not in run | NOT_RUN.keys()]


def written() -> list[str]:
    return [line for page in PAGES for line in commands((ROOT / page).read_text(encoding="utf-8"))]


def test_the_command_of_every_card_has_a_plan(tmp_path):
    cards = [path for path in sorted((ROOT / "docs/anonymizers").glob("*.md")) if path.name != "README.md"]
    for card in cards:
        (command,) = re.findall(r"`(bench run --anonymizer [^`]+)`", card.read_text(encoding="utf-8"))
        small = ["--attacker", "bones-lda", "--dry-run", *SMALL, "--results", str(tmp_path)]
        done = CliRunner().invoke(main, [*shlex.split(command)[1:], *small], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        assert "0 of them there" in done.output, command


def test_every_command_is_run_or_is_said_not_to_be():
    assert unknown(written()) == []


def test_no_command_is_run_that_nobody_reads():
    known = {*VIEWS, *NOT_RUN, *(line for story in STORIES.values() for line in story)}
    assert known <= set(written())


def test_a_command_in_neither_list_is_found():
    """Negative control: in a block, after another command, in running text; a bare name in running text is no command."""
    text = (
        "```sh\nbench run && bench rnu\nmake all # soon\n```\nSay `bench table --jsn FILE`, `pip install that`, or `bench run`."
    )
    assert unknown(commands(text)) == ["bench rnu", "make all", "bench table --jsn FILE", "pip install that"]


def test_what_ci_is_said_to_do_it_does():
    steps = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for line in (line for line, why in NOT_RUN.items() if why == CI):
        by_readme = f"'&& {line}$'" in steps or line.startswith("pip install -c constraints.txt -e")
        assert by_readme or re.search(rf"^{re.escape(line)}$", steps, flags=re.MULTILINE), line
    assert all(f"'&& {line}$'" in steps for line in ("bench run", "pytest"))  # with the `pip install` that goes before


def run(line: str, more: Sequence[str], stands_for: dict[str, str]) -> str:
    words = [stands_for.get(word, word) for word in shlex.split(line)[1:]]
    done = CliRunner().invoke(main, [*words, *more], catch_exceptions=False)
    assert done.exit_code == 0, f"{line}: {done.output}"
    assert done.output.strip(), line
    return done.output


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with the files that the documents speak of, and the records of a small grid."""
    folder = tmp_path_factory.mktemp("docs")
    (toml,) = re.findall(r"```toml\n(# grid.toml.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    (folder / "grid.toml").write_text(toml, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        begin(folder, patch)
        grid = ["--anonymizer", "mean-skeleton,gauss:std=0.05", "--attacker", "bones-lda", "--seeds", "1", "--no-mlflow", *HERE]
        run("bench run", [*SMALL, *grid], {})
    return folder


def begin(folder: Path, patch: pytest.MonkeyPatch) -> None:
    shrink_budget(patch)
    patch.chdir(folder)
    patch.setenv("BENCH_RESULTS", str(folder / "of-the-run"))


@pytest.mark.parametrize("line", VIEWS)
def test_a_view_in_the_documents_is_made(finished, monkeypatch, line):
    begin(finished, monkeypatch)
    record = next(records(finished / "of-the-run" / "records")).data["key"]
    assert run(line, VIEWS[line], {**STANDS_FOR, "RECORD": record})


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("story", STORIES)
def test_commands_in_the_documents_run_one_after_the_other(tmp_path, monkeypatch, request, story):
    begin(tmp_path, monkeypatch)
    shutil.copytree(ROOT / "results" / "published", tmp_path / "results" / "published")
    (tmp_path / "path" / "to").mkdir(parents=True)
    if story == "own data":
        own_data(tmp_path / "path" / "to" / "folder")
    if story == "real data":
        real = request.getfixturevalue("bench_data") / "UTD-MHAD"
        if not real.is_dir():
            pytest.skip(f"{real} is not there")
        (tmp_path / "path" / "to" / "UTD-MHAD").symlink_to(real, target_is_directory=True)
    for line, more in STORIES[story].items():
        isolates = line.startswith(("bench submit check", "bench submit evaluate")) and probe("namespace")
        run(line, [*more, *(["--isolation", "process", "--trust"] if isolates else [])], STANDS_FOR)
    close_all()


def own_data(folder: Path) -> None:
    """As the README says that one's own data must look: four people, four actions, four takes."""
    rng, names = np.random.default_rng(0), [f"c{i}" for i in range(64)]
    folder.mkdir()
    np.savez(folder / "clips.npz", **{name: rng.standard_normal((12, 20, 3)) for name in names})
    lines = [f"{name},{i % 4 + 1},{i // 16 + 1}" for i, name in enumerate(names)]
    (folder / "labels.csv").write_text("\n".join(["clip,action,subject", *lines]) + "\n")


@pytest.mark.parametrize(("kind", "group"), [("anonymizer", "anonymizers"), ("attacker", "attackers")])
def test_every_command_of_a_template_is_run_below(tmp_path, kind, group):
    folder = new_submission(tmp_path / "my-method", kind, tmp_path / "results")
    found = commands((folder / "README.md").read_text(encoding="utf-8"))
    assert found == [line.format(group=group) for line in OF_TEMPLATES]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_projects_are_installed_listed_and_run_as_plugins(tmp_path):
    """An anonymizer and an attacker, each in a package of its own, installed by pip without a network, meet."""
    at, environment = tmp_path / "site", {**os.environ, "BENCH_RESULTS": str(tmp_path / "results")}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(at)])

    def told(*words: str, folder: Path = tmp_path) -> str:
        command = [sys.executable, *(words if words[0].endswith(".py") else ["-m", *words])]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    for kind, group, name in (("anonymizer", "anonymizers", "acme-shift"), ("attacker", "attackers", "acme-nearest")):
        assert name not in told("bench", "list", group), "negative control"
        folder = new_submission(tmp_path / name, kind, tmp_path / "results")
        told("pytest", "-q", folder=folder)
        told("bench", "submit", "seal", ".", folder=folder)
        offline = ["--no-index", "--no-deps", "--no-build-isolation", "--target", str(at)]
        told("pip", "install", "--quiet", *offline, ".", folder=folder)
        listed = next(line for line in told("bench", "list", group).splitlines() if name in line)
        assert f"{name} 0.1" in " ".join(listed.split())
    script, measured = str(ROOT / "tests" / "small_run.py"), tmp_path / "measured"
    names = ["--anonymizers", "acme-shift:std=0.1", "--attackers", "acme-nearest"]
    assert '"failed": []' in told(script, str(measured), "--executor", "serial", *names)
    found = [{side: r.data[side]["provider"] for side in ("anonymizer", "attacker")} for r in records(measured / "records")]
    assert {"anonymizer": "acme-shift 0.1", "attacker": "acme-nearest 0.1"} in found
    assert "acme-shift 0.1" in told("bench", "leaderboard", "--results", str(measured))
