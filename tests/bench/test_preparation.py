"""Preparations that were interrupted, on clips in the format of NTU RGB+D."""

import pytest

from bench.data import ntu, ntu_files
from bench.data.dataset import DataError
from bench.data.ntu_format import write_ntu_folder
from bench.data.prepare import prepare
from bench.data.store import ClipStore
from bench.data.synthetic import Synthetic
from bench.registry import DATASETS
from bench.specs import parse_spec


def test_an_interrupted_preparation_goes_on(tmp_path, monkeypatch):
    """The files that were read are not read again, and the store is the one of an undisturbed run."""
    people = Synthetic(people=2, motions=2, replications=2, cameras=1)
    write_ntu_folder(people, tmp_path / "clips")
    spec = parse_spec("ntu60", DATASETS)
    whole = prepare(spec, tmp_path / "clips", tmp_path / "whole")

    def stop(done, total):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(spec, tmp_path / "clips", tmp_path / "results", stop)
    read_again, said = [], []
    monkeypatch.setattr(ntu, "read_clip", lambda member: read_again.append(member.name) or ntu_files.read_clip(member))
    store = prepare(spec, tmp_path / "clips", tmp_path / "results", say=said.append)
    assert len(read_again) == len(whole) - 5
    assert said == ["ntu60: goes on after the 5 clips of an interrupted attempt"]
    for name in ("frames.npy", "index.npy", "labels.csv", "meta.json"):
        assert (store.path / name).read_bytes() == (whole.path / name).read_bytes()


@pytest.mark.parametrize("change", ["table", "list", "file", "nothing"])
def test_a_preparation_goes_on_only_with_the_same_files(tmp_path, change):
    """Tables beside the clips decide on them as well as the clips' own files do."""
    people = Synthetic(people=2, motions=2, replications=2, cameras=1)
    files = write_ntu_folder(people, tmp_path / "all" / "clips")
    table = tmp_path / "genders" / "table.csv"
    table.parent.mkdir()
    table.write_text("P,Gender\n1,F\n2,M\n")
    spec = parse_spec(f"ntu60:gender_csv={table}", DATASETS)

    def stop(done, total):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(spec, tmp_path / "all" / "clips", tmp_path / "results", stop)
    if change == "table":
        table.write_text("P,Gender\n1,M\n2,F\n\n")
    elif change == "list":
        (tmp_path / "all" / "NTU_RGBD_samples_with_missing_skeletons.txt").write_text(f"prose\n{files[0].stem}\n")
    elif change == "file":
        files[-1].write_bytes(files[-1].read_bytes() + b"\n")
    said = []
    store = prepare(spec, tmp_path / "all" / "clips", tmp_path / "results", say=said.append)
    assert bool(said) == (change == "nothing")
    labels = store.labels
    assert (labels.loc[labels["subject"] == 1, "gender"] == ("M" if change == "table" else "F")).all()
    assert len(store) == len(files) - (change == "list")


def test_a_store_that_was_put_aside_by_a_killed_process_comes_back(tmp_path):
    people = Synthetic(people=2, motions=2, replications=2, cameras=1)
    write_ntu_folder(people, tmp_path / "clips")
    spec = parse_spec("ntu60", DATASETS)
    path = prepare(spec, tmp_path / "clips", tmp_path / "results").path
    aside = path.parent / ".ntu60.x1y2.old"
    aside.mkdir()
    path.rename(aside / "ntu60")
    (tmp_path / "clips" / "S001C001P001R001A001.skeleton").write_text("cut")
    with pytest.raises(DataError, match="S001C001P001R001A001"):
        prepare(spec, tmp_path / "clips", tmp_path / "results")
    assert len(ClipStore.open(path)) > 0
    assert not aside.exists()
