"""Submissions: their manifest and their files."""

import shutil
from pathlib import Path

import pytest

from bench.occupied import at_work
from bench.submission.manifest import ManifestError, check_files, copy_files, read_manifest, seal
from tests.bench.hostile import write_method

GOOD = """
schema = 1
kind = "code"
name = "acme-blur"
version = "1.0"
authors = ["A. Uthor"]
licence = "MIT"
[code]
source = "src"
target = "acme:Blur"
"""


def manifest(folder: Path, text: str = GOOD) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "submission.toml").write_text(text, encoding="utf-8")
    return folder


def test_a_whole_manifest_is_read(tmp_path):
    found = read_manifest(manifest(tmp_path))
    assert (found.provider, found.code.target, found.seeds) == ("acme-blur 1.0", "acme:Blur", [0, 1, 2])


def test_everything_that_is_wrong_is_told_at_once(tmp_path):
    text = GOOD.replace("schema = 1", "schema = 7").replace('"acme-blur"', '"Acme Blur"').replace("licence", "license")
    text = text.replace('"acme:Blur"', '"acme.Blur"')
    with pytest.raises(ManifestError) as caught:
        read_manifest(manifest(tmp_path, text))
    assert {where for where, _, _ in caught.value.problems} == {"schema", "name", "licence", "license", "code.target"}


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('kind = "code"', 'kind = "weights"', r"needs the table \[weights\]"),
        ("[code]", "[data]", "data.folder"),
        ("schema = 1", "schema = 1\nseeds = [1, 1]", "a seed is given twice"),
        ("schema = 1", "schema = 1\nseeds = [true]", "seeds.0"),
        ("schema = 1", "schema = 1\nfiles = [{path='a', sha256='x'}]", "files.0.sha256"),
        ("schema = 1", "schema = ", "it is no TOML"),
        ('source = "src"', 'source = "../other"', "code.source"),
        ('source = "src"', 'source = "/etc"', "code.source"),
    ],
)
def test_a_wrong_manifest_is_refused_with_the_place(tmp_path, old, new, told):
    with pytest.raises(ManifestError, match=told):
        read_manifest(manifest(tmp_path, GOOD.replace(old, new)))


def test_no_manifest_and_a_link_for_one_are_refused(tmp_path):
    with pytest.raises(ManifestError, match="bench submit new"):
        read_manifest(tmp_path)
    (tmp_path / "real").write_text(GOOD)
    (tmp_path / "submission.toml").symlink_to(tmp_path / "real")
    with pytest.raises(ManifestError, match="a link"):
        read_manifest(tmp_path)


def test_files_are_what_the_manifest_says(tmp_path):
    folder = write_method(tmp_path / "m", "pass")
    assert check_files(folder, read_manifest(folder)) == []
    (folder / "src" / "method.py").write_text("changed")
    (folder / "extra.txt").write_text("x")
    found = check_files(folder, read_manifest(folder))
    assert [where for where, _, _ in found] == ["extra.txt", "src/method.py"]
    (folder / "src" / "method.py").unlink()
    assert ("src/method.py", "it is listed but not there") in [f[:2] for f in check_files(folder, read_manifest(folder))]
    assert seal(folder) == 1
    assert check_files(folder, read_manifest(folder)) == []


def test_what_tools_leave_behind_is_no_part_of_a_submission(tmp_path):
    """A results folder of `bench`, as `bench submit check .` makes one, and what pip builds; one only named so is."""
    folder = write_method(tmp_path / "m", "pass")
    with at_work(folder / "results"):
        (folder / "results" / "clips.npy").write_text("real people")
    for name in ("build/lib/method.py", "src/method.egg-info/PKG-INFO", "src/__pycache__/method.pyc"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text("x")
    assert check_files(folder, read_manifest(folder)) == []
    assert seal(folder) == 1
    copy_files(folder, tmp_path / "copy")
    assert not (tmp_path / "copy" / "results").exists()
    (folder / "src" / "results").mkdir()
    (folder / "src" / "results" / "table.txt").write_text("x")
    assert [where for where, _, _ in check_files(folder, read_manifest(folder))] == ["src/results/table.txt"]


def test_a_copy_that_follows_links_would_take_the_secret_in(tmp_path):
    """Positive control."""
    (tmp_path / "secret").write_text("s3cret")
    folder = write_method(tmp_path / "m", "pass")
    (folder / "link").symlink_to("../secret")
    shutil.copytree(folder, tmp_path / "copy")
    assert (tmp_path / "copy" / "link").read_text() == "s3cret"


def test_sealing_keeps_what_authors_wrote(tmp_path):
    folder = manifest(tmp_path, GOOD + "# a remark\n")
    (folder / "a.txt").write_text("a")
    seal(folder)
    assert "# a remark" in (folder / "submission.toml").read_text()
    assert [file.path for file in read_manifest(folder).files] == ["a.txt"]
