"""The clip store: what goes in comes out, and a store is whole or not there."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from bench.data.store import ClipStore, ClipWriter, StoreError, standing_height
from bench.skeleton import get_layout

NTU = get_layout("ntu")
FILES = ("frames.npy", "index.npy", "labels.csv", "meta.json")
META = {"dataset": "test", "frame_rate": 30.0}


def labels(k, **more):
    return {"clip": f"c{k}", "action": k % 3, "subject": k % 2, "performance": f"p{k}", **more}


def make_clips():
    rng = np.random.default_rng(0)
    return [rng.normal(size=(3, frames, 25, bodies)).astype(np.float32) for frames, bodies in ((4, 1), (1, 2), (7, 2), (5, 1))]


def write(path, clips, **more):
    with ClipWriter(path, NTU, META) as writer:
        for k, clip in enumerate(clips):
            writer.add(clip, labels(k, **more))
    return ClipStore.open(path)


def test_round_trip(tmp_path):
    clips = make_clips()
    clips[2][:, 3, :, 0] = 0  # a body that is away for a frame keeps its slot
    padded = [np.concatenate([clip, np.zeros_like(clip)], axis=3) for clip in clips]
    store = write(tmp_path / "s", padded)
    assert len(store) == 4
    assert store.lengths.tolist() == [4, 1, 7, 5]
    assert store.index[:, 2].tolist() == [1, 2, 2, 1]  # trailing bodies that never come are dropped
    assert store.num_bodies == 2
    assert store.layout is NTU
    for clip, back in zip(clips, store, strict=True):
        np.testing.assert_array_equal(back, clip)
    assert store.rows.shape == (4 + 2 + 14 + 5, 3, 25)
    assert isinstance(store.rows, np.memmap)
    assert store.rows.dtype == np.float32
    assert not store.rows.flags.writeable
    np.testing.assert_array_equal(store.rows[6 + 1], clips[2][:, 0, :, 1])  # frame by frame, body by body
    assert (store.meta["clips"], store.meta["frames"], store.meta["dataset"]) == (4, 17, "test")


def test_missing_labels_are_missing(tmp_path):
    with ClipWriter(tmp_path / "s", NTU, META) as writer:
        writer.add(make_clips()[0], {**labels(0), "gender": "F", "camera": 2})
        writer.add(make_clips()[1], {**labels(1), "performance": "001", "gender": ""})
        writer.skip("c9", "has no skeleton")
    store = ClipStore.open(tmp_path / "s")
    assert list(store.labels) == ["clip", "action", "subject", "performance", "gender", "camera"]
    assert store.labels["gender"].isna().tolist() == [False, True]
    assert store.labels["camera"].isna().tolist() == [False, True]
    assert pd.api.types.is_integer_dtype(store.labels["camera"])  # not 2.0
    assert store.labels["performance"].tolist() == ["p0", "001"]  # a name stays text
    assert store.meta["skipped"] == [{"clip": "c9", "reason": "has no skeleton"}]


def test_fingerprint_is_of_the_data(tmp_path):
    clips = make_clips()
    first = write(tmp_path / "a", clips).fingerprint
    assert write(tmp_path / "b", clips).fingerprint == first
    changed = [clip.copy() for clip in clips]
    changed[1][0, 0, 0, 0] += 1e-6
    assert write(tmp_path / "c", changed).fingerprint != first
    assert write(tmp_path / "d", clips[::-1]).fingerprint != first
    assert write(tmp_path / "e", clips, camera=1).fingerprint != first
    # The same rows cut into clips in another way are other data.
    rows = np.concatenate([clips[0], clips[3]], axis=1)
    assert (
        write(tmp_path / "f", [rows[:, :4], rows[:, 4:]]).fingerprint
        != write(tmp_path / "g", [rows[:, :5], rows[:, 5:]]).fingerprint
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda clip, given: (clip[:2], given), r"expected shape \(3, T, 25, M\)"),
        (lambda clip, given: (clip[:, :, :20], given), r"expected shape \(3, T, 25, M\)"),
        (lambda clip, given: (clip[:, :0], given), r"expected shape \(3, T, 25, M\)"),
        (lambda clip, given: (clip[..., 0], given), r"expected shape \(3, T, 25, M\)"),
        (lambda clip, given: (np.where(clip > 1, np.nan, clip), given), "not finite"),
        (lambda clip, given: (clip * 0, given), "no body"),
        (lambda clip, given: (clip, {**given, "subject": None}), "no value for subject"),
        (lambda clip, given: (clip, {**given, "performance": ""}), "no value for performance"),
        (lambda clip, given: (clip, {**given, "clip": "c0"}), "already written"),
    ],
)
def test_refuses_clips_and_leaves_nothing(tmp_path, change, message):
    clips = make_clips()
    with pytest.raises(ValueError, match=message), ClipWriter(tmp_path / "s", NTU, META) as writer:
        writer.add(clips[0], labels(0))
        writer.add(*change(clips[1], labels(1)))
    assert list(tmp_path.iterdir()) == []


def test_interrupted_writer_keeps_the_old_store(tmp_path):
    old = write(tmp_path / "s", make_clips()).fingerprint
    with pytest.raises(KeyboardInterrupt), ClipWriter(tmp_path / "s", NTU, META) as writer:
        writer.add(make_clips()[0], labels(0))
        raise KeyboardInterrupt
    assert ClipStore.open(tmp_path / "s").fingerprint == old
    assert write(tmp_path / "s", make_clips()[:2]).fingerprint != old  # a finished one replaces it
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_refuses_an_empty_store(tmp_path):
    with pytest.raises(StoreError, match=r"no clip could be read \(1 skipped\)"), ClipWriter(tmp_path / "s", NTU, META) as writer:
        writer.skip("c0", "has no skeleton")
    assert list(tmp_path.iterdir()) == []


def cut(name, share):
    return lambda path: (path / name).write_bytes((path / name).read_bytes()[: int((path / name).stat().st_size * share)])


def rewrite_meta(**changes):
    def change(path):
        meta = json.loads((path / "meta.json").read_text()) | changes
        (path / "meta.json").write_text(json.dumps(meta))

    return change


def save(name, change):
    return lambda path: np.save(path / name, change(np.load(path / name)))


DAMAGE = {
    **{f"no {name}": lambda path, name=name: (path / name).unlink() for name in FILES},
    **{f"{name} cut at {share}": cut(name, share) for name in FILES for share in (0, 0.4)},
    **{f"{name} cut at 0.95": cut(name, 0.95) for name in FILES if name != "labels.csv"},  # may only shorten a name there
    "another schema": rewrite_meta(schema=99),
    "another layout": rewrite_meta(layout="tail"),
    "meta is a list": lambda path: (path / "meta.json").write_text("[]"),
    "flat index": save("index.npy", np.ravel),
    "index beyond the rows": save("index.npy", lambda index: index + np.array([900, 0, 0])),
    "a row too few": save("frames.npy", lambda rows: rows[:-1]),
    "index of text": save("index.npy", lambda index: index.astype("U5")),
    "less than no frames": save("index.npy", lambda index: index * np.array([1, -1, -1])),
    "frames of text": save("frames.npy", lambda rows: rows.astype("U3")),
    "a list of heights": rewrite_meta(heights=[1, 2]),
    "heights of text": rewrite_meta(heights={"1": "tall"}),
    "pickled frames": save("frames.npy", lambda rows: rows.astype(object)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_refused_in_one_line(tmp_path, damage):
    write(tmp_path / "s", make_clips())
    DAMAGE[damage](tmp_path / "s")
    with pytest.raises(StoreError) as caught:
        store = ClipStore.open(tmp_path / "s")
        assert len(store.labels) == len(store)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "s") in str(caught.value)
    assert "prepare the data again" in str(caught.value)


def test_no_store_at_all(tmp_path):
    with pytest.raises(StoreError, match="not a whole clip store"):
        ClipStore.open(tmp_path / "nothing")


class Killed(BaseException):
    """Stands for Ctrl-C: not an error of the work."""


def write_until(path, clips, last, key="key"):
    """Writes clips, every third one left out, and is interrupted after `last` of them; returns how many were there before."""
    with ClipWriter(path, NTU, META, key) as writer:
        before = writer.resumed
        for k, clip in enumerate(clips[:last]):
            if k % 3 == 2:
                writer.skip(f"c{k}", "a rule")
            else:
                writer.add(clip, labels(k, gender="F"))
        if last < len(clips):
            raise Killed
    return before


def files_of(path):
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_interrupted_work_goes_on(tmp_path):
    clips = make_clips()
    write_until(tmp_path / "whole", clips, 4)
    for last in (0, 1, 3):
        with pytest.raises(Killed):
            write_until(tmp_path / "s", clips, last)
        assert not (tmp_path / "s").exists()
    assert write_until(tmp_path / "s", clips, 4) == 3
    assert files_of(tmp_path / "s") == files_of(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s", "whole"]


ENTRIES = {
    "zeros": lambda line: bytes(len(line) - 1) + b"\n",
    "no entry": lambda line: b"{}\n",
    "a number": lambda line: b"5\n",
    "no text": lambda line: b"\xff\xfe\n",
    "no clip's name": lambda line: line.replace(b'"clip": "c1"', b'"clip": ""'),
    "negative frames": lambda line: re.sub(rb'"frames": \d+', b'"frames": -4', line),
    "many frames": lambda line: re.sub(rb'"frames": \d+', b'"frames": 1000000000', line),
    "frames that are a text": lambda line: re.sub(rb'"frames": \d+', b'"frames": "4"', line),
}


@pytest.mark.parametrize(
    "damage",
    ["journal cut", "journal cut within a line", "frames cut", "frames overwritten", "another key", *ENTRIES],
)
def test_what_an_interruption_left_is_checked(tmp_path, damage):
    clips = make_clips()
    write_until(tmp_path / "whole", clips, 4)
    with pytest.raises(Killed):
        write_until(tmp_path / "s", clips, 3)
    journal, frames = (tmp_path / ".s.partial" / name for name in ("journal.jsonl", "frames.npy"))
    if damage.startswith("journal"):
        lines = journal.read_bytes().splitlines(keepends=True)
        journal.write_bytes(b"".join(lines[:2]) if damage == "journal cut" else b"".join(lines)[:-5])
    elif damage in ENTRIES:
        lines = journal.read_bytes().splitlines(keepends=True)
        journal.write_bytes(lines[0] + ENTRIES[damage](lines[1]))
    elif damage == "frames cut":
        frames.write_bytes(frames.read_bytes()[:-7])
    elif damage == "frames overwritten":
        frames.write_bytes(frames.read_bytes()[:-7] + bytes(7))
    expected = {"journal cut": 2, "journal cut within a line": 2, "frames cut": 1, "frames overwritten": 1, "another key": 0}
    expected |= dict.fromkeys(ENTRIES, 1)
    key = "other" if damage == "another key" else "key"
    assert write_until(tmp_path / "s", clips, 4, key) == expected[damage]
    assert files_of(tmp_path / "s") == files_of(tmp_path / "whole")


def test_an_error_leaves_nothing_to_go_on_with(tmp_path):
    clips = make_clips()
    with pytest.raises(Killed):
        write_until(tmp_path / "s", clips, 2)
    with pytest.raises(ValueError, match="already written"), ClipWriter(tmp_path / "s", NTU, META, "key") as writer:
        writer.add(clips[2], labels(7))
        writer.add(clips[2], labels(7))
    assert not list(tmp_path.iterdir())


def test_a_name_that_comes_twice_is_refused_also_after_an_interruption(tmp_path):
    clips = make_clips()
    with pytest.raises(Killed):
        write_until(tmp_path / "s", clips, 2)
    with pytest.raises(StoreError, match="already written"), ClipWriter(tmp_path / "s", NTU, META, "key") as writer:
        assert writer.resumed == 2
        assert writer.has("c0")
        writer.add(clips[1], labels(1))
        writer.add(clips[1], labels(1))


@pytest.mark.parametrize("name", ["NA", "nan", "None", "null", "007", "1e5", "true"])
def test_names_stay_as_they_are(tmp_path, name):
    with ClipWriter(tmp_path / "s", NTU, META) as writer:
        writer.add(make_clips()[0], {**labels(0), "clip": name, "performance": name, "gender": name})
        writer.add(make_clips()[1], {**labels(1), "gender": ""})
    found = ClipStore.open(tmp_path / "s").labels
    assert found["clip"].tolist()[0] == found["performance"].tolist()[0] == name
    assert found["gender"].isna().tolist() == [False, True]


def test_a_clip_of_nobody_is_left_out(tmp_path):
    clip = make_clips()[0]
    with ClipWriter(tmp_path / "s", NTU, META) as writer:
        writer.add_shown(clip, labels(0))
        writer.add_shown(np.zeros_like(clip), labels(1))
    store = ClipStore.open(tmp_path / "s")
    assert len(store) == 1
    assert store.meta["skipped"] == [{"clip": "c1", "reason": "all coordinates are zero: no body"}]


def people_of(heights, path):
    """A store of one clip a person, an upright body of a given size with limbs that move."""
    rng = np.random.default_rng(0)
    pose = rng.normal(size=(3, 25))
    with ClipWriter(path, NTU, META) as writer:
        for k, height in enumerate(heights):
            angle = rng.uniform(0, 6, 40)
            turn = np.array(
                [
                    [np.cos(angle), 0 * angle, np.sin(angle)],
                    [0 * angle, 1 + 0 * angle, 0 * angle],
                    [-np.sin(angle), 0 * angle, np.cos(angle)],
                ]
            )
            clip = np.einsum("ijt,jv->itv", turn, height * pose) + rng.normal(size=(3, 40, 1))
            writer.add(clip[..., None].astype(np.float32), {**labels(k), "subject": k + 1})
    return ClipStore.open(path)


def test_height_is_measured_along_the_bones(tmp_path):
    """Wherever a body stands and however it turns; twice the body, twice the height; people fall into thirds."""
    store = people_of([1.0, 3.0, 2.0, 6.0, 5.0, 4.0], tmp_path / "s")
    heights = [store.meta["heights"][str(k)] for k in range(1, 7)]
    np.testing.assert_allclose(np.array(heights) / heights[0], [1, 3, 2, 6, 5, 4], rtol=1e-3)
    assert store.labels["height_class"].tolist() == ["short", "medium", "short", "tall", "tall", "medium"]
    assert "height_class" not in next(store.label_rows())  # what is measured is not handed on as if it were stated


def test_height_of_a_known_body():
    """Head at 1.7 m, hips at 0.9 m, 0.2 m apart, ankles at 0.1 m straight below them; the spine is straight."""
    body = np.zeros((1, 3, 25), np.float32)
    for name, place in {
        "spine base": (0, 0.9, 3),
        "spine mid": (0, 1.2, 3),
        "spine shoulder": (0, 1.4, 3),
        "neck": (0, 1.5, 3),
        "head": (0, 1.7, 3),
        **{
            f"{side} {joint}": (x, y, 3)
            for side, x in (("left", -0.1), ("right", 0.1))
            for joint, y in (("hip", 0.9), ("knee", 0.5), ("ankle", 0.1))
        },
    }.items():
        body[0, :, NTU.index(name)] = place
    assert standing_height(body, NTU) == pytest.approx(0.8 + 0.1 + 0.8, abs=1e-6)
    centred = body - body[:, :, [NTU.index("spine mid")]]
    centred[0][:, ~body[0].any(axis=0)] = 0
    assert standing_height(centred, NTU) == pytest.approx(1.7, abs=1e-6)
    assert standing_height(np.zeros_like(body), NTU) == 0


def test_two_people_are_no_thirds(tmp_path):
    assert "height_class" not in people_of([1.0, 2.0], tmp_path / "s").labels
