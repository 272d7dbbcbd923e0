import re
import subprocess
import sys

import pytest
from click.testing import CliRunner

from bench.cli import main
from bench.registry import ANONYMIZERS, ATTACKERS, BACKBONES, DATASETS
from bench.skeleton import layout_names

HEAVY = ("torch", "mlflow", "pandas", "sklearn", "matplotlib", "scipy", "numpy", "rich")


def test_help_imports_nothing_heavy():
    code = f"""
import sys
from click.testing import CliRunner
from bench.cli import main
outcome = CliRunner().invoke(main, ["--help"])
assert outcome.exit_code == 0, outcome.output
assert "Usage" in outcome.output
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("command", ["bench", "skeleton-privacy-bench", "module"])
def test_every_way_to_start_it_works(command):
    import shutil
    from pathlib import Path

    if command == "module":
        arguments = [sys.executable, "-m", "bench"]
    else:
        arguments = [shutil.which(command, path=str(Path(sys.executable).parent)) or pytest.fail(f"{command} is not installed")]
    done = subprocess.run([*arguments, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("bench, version ")


def test_list_names_every_plugin_with_its_parameters_and_units():
    outcome = CliRunner().invoke(main, ["list"])
    assert outcome.exit_code == 0
    for registry in (ANONYMIZERS, ATTACKERS, BACKBONES, DATASETS):
        for name in registry.names():
            assert f"  {name} " in outcome.output
    assert "std=0.05 m (>= 0.0" in outcome.output or "std=0.05 m (>= 0)" in outcome.output
    only = CliRunner().invoke(main, ["list", "anonymizers"]).output
    assert "gauss" in only
    assert "shiftgcn" not in only


def test_list_shows_the_joints_of_each_layout():
    """Some by the enumeration JointType of Microsoft's SDK 1.8 and by NTU RGB+D's numbers, which begin at 1."""
    outcome = CliRunner().invoke(main, ["list", "layouts"])
    assert outcome.exit_code == 0
    blocks = {
        block.split()[0]: block.splitlines() for block in re.split(r"\n  (?=[a-z0-9-]+  \d+ joints)", outcome.output.strip())[1:]
    }
    assert set(blocks) == set(layout_names())
    for head, *lines in blocks.values():
        assert [int(line.split()[0]) for line in lines] == list(range(int(head.split()[1])))
    joints = {name: [re.split(r"\s{2,}", line.strip()) for line in lines] for name, (_, *lines) in blocks.items()}
    kinect = joints["kinect-v1"]
    assert kinect[0] == ["0", "hip centre", "root"]
    assert [kinect[j][1] for j in (3, 4, 11, 12, 19)] == ["head", "left shoulder", "right hand", "left hip", "right foot"]
    assert [joints["ntu"][j - 1] for j in (4, 21)] == [["3", "head", "on neck"], ["20", "spine shoulder", "on spine mid"]]
    assert "centred on spine mid; turned by spine base to spine mid (up) and left shoulder to right shoulder" in blocks["ntu"][0]
    assert "layouts\n" in CliRunner().invoke(main, ["list"]).output


def test_doctor_reports_versions_and_the_results_folder(tmp_path):
    outcome = CliRunner().invoke(main, ["doctor", "--results", str(tmp_path / "none")])
    assert outcome.exit_code == 0
    assert "torch" in outcome.output
    assert "0 records, 0 stages, 0 data sets" in outcome.output
    assert not (tmp_path / "none").exists()


def test_prepare_and_info_of_synthetic_people(tmp_path):
    name = "synthetic:people=4,motions=2,cameras=1"
    outcome = CliRunner().invoke(main, ["data", "prepare", name, "--results", str(tmp_path)])
    assert outcome.exit_code == 0
    assert "16 clips, 0 left out" in outcome.output
    outcome = CliRunner().invoke(main, ["data", "info", name, "--results", str(tmp_path)])
    assert outcome.exit_code == 0
    for text in ("layout", "ntu, 25 joints", "subject              4 values", "xrep/1 gender", "fingerprint", "licence"):
        assert text in outcome.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["utd-mhad"], "utd-mhad needs the files that its owners distribute; name their folder with --source PATH"),
        (["utd-mhad", "--source", "no-such"], "no-such does not exist"),
        (["synthetic", "--source", "."], "synthetic is generated and reads no files"),
        (["synthetic:people=1"], "people must be between 2 and 999, got 1"),
    ],
)
def test_a_mistaken_source_is_one_line_and_leaves_nothing(arguments, message, tmp_path):
    outcome = CliRunner().invoke(main, ["data", "prepare", *arguments, "--results", str(tmp_path / "r")])
    assert outcome.exit_code == 2
    assert message in outcome.output
    assert not list((tmp_path / "r").glob("data/*")) if (tmp_path / "r").exists() else True
