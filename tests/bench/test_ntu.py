"""The NTU RGB+D reader on three real files, where they are, and on made-up ones in the same format."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from bench.data import ntu_files
from bench.data.dataset import DataError
from bench.data.ntu import NTU60, NTU120
from bench.data.ntu_files import main_bodies, parse_skeleton
from bench.data.ntu_format import write_ntu_folder, write_skeleton
from bench.data.store import ClipStore, ClipWriter
from bench.data.synthetic import Synthetic
from bench.protocols import ProtocolError, instantiate
from bench.skeleton import get_layout

NAMES = ["S001C001P001R001A011", "S001C003P008R002A058", "S002C001P003R001A003"]


def read(source, path, dataset=None, progress=lambda done, total: None):
    with ClipWriter(path, get_layout("ntu"), {"frame_rate": 30.0}) as writer:
        (dataset or NTU60()).read(Path(source), writer, progress)
    return ClipStore.open(path)


def plain(text):
    """Slots of a `.skeleton` text, line by line: (T, 25, 3, 4)."""
    lines = iter(text.splitlines())
    frames = []
    for _ in range(int(next(lines))):
        slots = np.zeros((25, 3, 4))
        for slot in range(int(next(lines))):
            assert len(next(lines).split()) == 10
            for joint in range(int(next(lines))):
                values = next(lines).split()
                assert len(values) == 12
                if slot < 4:
                    slots[joint, :, slot] = [float(value) for value in values[:3]]
        frames.append(slots)
    assert not "".join(lines).strip()
    return np.array(frames)


def joint_line(place, seed=0):
    x, y, z = (f"{value:.7g}" for value in place)
    return f"{x} {y} {z} 276.0976 190.0662 1032.328 {514.0889 + seed} -0.1705678 0.04232755 0.9718983 -1.566168E-05 2"


def lines_of(bodies):
    """Lines of a file; `bodies[t]` are the bodies (25, 3) of frame t."""
    out = [str(len(bodies))]
    for frame in bodies:
        out.append(str(len(frame)))
        for slot, body in enumerate(frame):
            out += [f"{72057594037931648 + slot} 0 1 1 1 1 0 -0.1159187 0.1413209 2", "25", *(joint_line(p) for p in body)]
    return out


def text_of(bodies):
    return "".join(line + "\r\n" for line in lines_of(bodies)).encode()


def person(seed, scale=0.3):
    return np.random.default_rng(seed).normal(size=(25, 3)) * scale + [0, 0, 3]


THREE = [[person(0)], [], [person(1), person(2)]]  # frames with one body, none and two
# Lines of its text: 0 frames; 1 bodies; 2 body; 3 joints; 4-28; 29 bodies (none); 30 bodies; 31 body; 32 joints; 33-57; 58 ...
LINES = lines_of(THREE)


def folder_of(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}.skeleton").write_bytes(content)
    return folder


def moving(seed, count=3, scale=0.3):
    return [[person(seed + t, scale)] for t in range(count)]


# Real files ------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def samples(bench_data) -> Path:
    return bench_data / "NTU-RGBD-samples"


def test_real_files(samples, tmp_path):
    seen = []
    store = read(samples, tmp_path / "store", progress=lambda *counts: seen.append(counts))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert store.labels["clip"].tolist() == NAMES
    assert store.lengths.tolist() == [82, 70, 100]
    assert store.index[:, 2].tolist() == [1, 2, 1]
    assert "gender" not in store.labels
    assert store.labels.loc[1].to_dict() == {
        "clip": "S001C003P008R002A058",
        "action": 58,
        "subject": 8,
        "performance": "S001P008R002A058",
        "camera": 3,
        "setup": 1,
        "replication": 2,
        "actors": 2,
    }
    assert store.meta["skipped"] == []
    for name, clip in zip(NAMES, store, strict=True):
        slots = plain((samples / f"{name}.skeleton").read_text())
        np.testing.assert_array_equal(parse_skeleton((samples / f"{name}.skeleton").read_bytes()), slots)
        energy = [sum(slots[..., axis, k].std() for axis in range(3)) for k in range(4)]
        order = sorted(range(clip.shape[3]), key=lambda k: -energy[k])
        for body, slot in enumerate(order):
            np.testing.assert_array_equal(clip[..., body], slots[..., slot].transpose(2, 0, 1).astype(np.float32))
    assert 2 < store.clip(0)[2].mean() < 5  # metres from the camera


def test_real_gender_table(samples, tmp_path):
    store = read(samples, tmp_path / "store", NTU120(gender_csv=str(samples / "Genders.csv")))
    assert store.labels["gender"].tolist() == ["F", "M", "M"]


def test_real_missing_lists(samples):
    listed = ntu_files.missing_clips(samples)
    assert len(listed) == 535
    assert "S001C002P005R002A008" in listed
    assert listed.isdisjoint(NAMES)


# Made-up files ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_parses_every_frame_and_slot(end):
    text = end.join(LINES) + end
    slots = parse_skeleton(text.encode())
    np.testing.assert_array_equal(slots, plain(text))
    np.testing.assert_allclose(slots[2, :, :, 1], person(2), rtol=1e-6)
    assert not slots[1].any()
    assert not slots[0, ..., 1:].any()


def test_odd_but_whole_files_are_read_all_the_same():
    expected = plain("\n".join(LINES))
    odd = {
        "empty lines at the end": "\n".join([*LINES, "", " ", ""]),
        "no line end at the end": "\n".join(LINES),
        "tabs": "\n".join(line.replace(" ", "\t") for line in LINES),
        "two spaces": "\n".join(line.replace(" ", "  ") for line in LINES),
        "spaces at line ends": "\n".join(line + " " for line in LINES),
        "NaN where nobody looks": "\n".join(line.replace("276.0976", "NaN").replace("1032.328", "-inf") for line in LINES),
    }
    for name, text in odd.items():
        np.testing.assert_array_equal(parse_skeleton(text.encode()), expected, err_msg=name)


def test_more_than_four_bodies_are_read_past():
    bodies = [[person(k) for k in range(6)]]
    slots = parse_skeleton(text_of(bodies))
    assert slots.shape == (1, 25, 3, 4)
    np.testing.assert_allclose(slots[0, :, :, 3], person(3), rtol=1e-6)


def test_keeps_the_two_bodies_that_move_most():
    """A chair that comes first, a person, and another person who is there for half of the time and moves more."""
    bodies = [[person(0, 0.1), person(10 + t, 0.3), *([person(50 + t, 0.5)] if t < 3 else [])] for t in range(6)]
    clip = main_bodies(parse_skeleton(text_of(bodies)))
    assert clip.shape == (3, 6, 25, 2)
    for t, frame in enumerate(bodies):
        np.testing.assert_allclose(clip[:, t, :, 0].T, frame[2] if t < 3 else np.zeros((25, 3)), rtol=1e-6)
        np.testing.assert_allclose(clip[:, t, :, 1].T, frame[1], rtol=1e-6)


def test_energy_counts_only_frames_with_the_body():
    """Half of a slot's frames are empty: zeros must not add to its spread."""
    still = person(0, 0.2)
    bodies = [[person(10 + t, 0.4), still] if t % 2 else [person(10 + t, 0.4)] for t in range(8)]
    clip = main_bodies(parse_skeleton(text_of(bodies)))
    np.testing.assert_allclose(clip[:, 1, :, 1].T, still, rtol=1e-6)


def test_reads_what_the_writer_writes(tmp_path):
    """Our own writer of the format, the second body away for a while: the same to the last bit."""
    rng = np.random.default_rng(0)
    clip = (rng.normal(size=(3, 12, 25, 2)) * 0.2 + np.array([0, 0, 3]).reshape(3, 1, 1, 1)).astype(np.float32)
    clip[..., 0] *= 1.5  # moves more, so it stays first
    clip[:, 3:7, :, 1] = 0
    write_skeleton(tmp_path / "clips" / f"{NAMES[0]}.skeleton", clip)
    np.testing.assert_array_equal(read(tmp_path / "clips", tmp_path / "store").clip(0), clip)


def test_whole_folder_round_trip(tmp_path):
    """A synthetic set, written as the owners distribute theirs, reads as the same clips and labels to the last bit."""
    people = Synthetic(people=4, motions=2, cameras=2)
    with ClipWriter(tmp_path / "synthetic", get_layout("ntu"), {}) as writer:
        people.read(None, writer, lambda done, total: None)
    written = ClipStore.open(tmp_path / "synthetic")
    paths = write_ntu_folder(people, tmp_path / "clips")
    assert sorted(path.name for path in (tmp_path / "clips").iterdir()) == [path.name for path in paths]
    store = read(tmp_path / "clips", tmp_path / "store", NTU120())
    np.testing.assert_array_equal(store.index, written.index)
    np.testing.assert_array_equal(store.rows, written.rows)
    assert store.labels.drop(columns="actors").equals(written.labels.drop(columns="gender"))
    assert set(store.labels["actors"]) == {1}


def test_text_is_in_the_published_format(tmp_path):
    write_skeleton(tmp_path / "x.skeleton", np.full((3, 2, 25, 2), 2, np.float32))
    content = (tmp_path / "x.skeleton").read_bytes()
    assert content.count(b"\n") == content.count(b"\r\n") == 1 + 2 * (1 + 2 * 27)
    lines = content.decode().splitlines()
    assert lines[:2] == ["2", "2"]
    assert lines[3] == "25"
    identities = [lines[2].split()[0], lines[2 + 27].split()[0]]
    assert len(set(identities)) == 2
    assert all(len(identity) == 17 and identity.isdecimal() for identity in identities)


def test_still_body_is_kept():
    """All joints at one place and no motion: an energy of zero is not an absent body."""
    clip = main_bodies(parse_skeleton(text_of([[np.full((25, 3), 2.0)]] * 3)))
    np.testing.assert_array_equal(clip, np.full((3, 3, 25, 1), 2.0))


def test_long_clip_keeps_its_length():
    assert parse_skeleton(text_of(moving(0, 400))).shape[0] == 400


def kept(count, partial=""):
    """The first lines, and the beginning of the next one."""
    return "".join(line + "\r\n" for line in LINES[:count]) + partial


CUTS = {
    "at the start": ("", 1, "number of frames"),
    "after the number of frames": (kept(1), 2, "number of bodies in frame 1 of 3"),
    "after the number of bodies": (kept(2), 4, "number of joints of body 1 in frame 1 of 3"),
    "within the body line": (kept(2, LINES[2][:30]), 3, "values, expected 10 .*cut short"),
    "after the body line": (kept(3), 4, "number of joints of body 1 in frame 1 of 3"),
    "after the number of joints": (kept(4), 5, "ends within frame 1 of 3"),
    "within the first joint line": (kept(4, LINES[4][:30]), 5, "values, expected 12 .*cut short"),
    "within a joint": (kept(14), 15, "ends within frame 1 of 3"),
    "before the last value of a joint": (kept(14, LINES[14][:-2]), 15, "11 values, expected 12 .*cut short"),
    "before the last joint of a frame": (kept(28), 29, "ends within frame 1 of 3"),
    "after a frame": (kept(29), 30, "number of bodies in frame 2 of 3"),
    "after an empty frame": (kept(30), 31, "number of bodies in frame 3 of 3"),
    "between two bodies": (kept(58), 60, "number of joints of body 2 in frame 3 of 3"),
    "within the second body": (kept(70), 71, "ends within frame 3 of 3"),
    "before the last line": (kept(len(LINES) - 1), len(LINES), "ends within frame 3 of 3"),
}


@pytest.mark.parametrize("case", CUTS)
def test_cut_file_is_named_with_its_line(tmp_path, case):
    content, line, message = CUTS[case]
    folder = folder_of(tmp_path / "clips", {NAMES[0]: text_of(moving(0)), NAMES[1]: content.encode()})
    with pytest.raises(DataError, match=rf"{NAMES[1]}\.skeleton: line {line}: .*{message}") as caught:
        read(folder, tmp_path / "store")
    assert "copy it again, or delete it to leave the clip out" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "store").exists()


def test_no_cut_goes_unnoticed():
    """Whatever byte a file ends at, it is refused, unless only its last line's end is lost."""
    whole = text_of(THREE)
    assert len(LINES) == 1 + (1 + 27) + 1 + (1 + 2 * 27)
    for size in range(0, len(whole) - 2, 7):
        with pytest.raises(ntu_files.FormatError):
            parse_skeleton(whole[:size])


def swapped(line, text):
    return "\r\n".join([*LINES[:line], *([text] if text is not None else []), *LINES[line + 1 :]])


def value(line, column, text):
    parts = LINES[line].split(" ")
    parts[column] = text
    return swapped(line, " ".join(parts))


BAD = {
    "20 joints": (swapped(3, "20"), "line 4: body 1 in frame 1 has 20 joints, expected 25"),
    "text for a coordinate": (value(10, 1, "abc"), "line 11: 'abc' is not a number"),
    "text elsewhere": (value(10, 7, "?"), r"line 11: '\?' is not a number"),
    "two points": (value(10, 0, "0.1.2"), r"line 11: '0\.1\.2' is not a number"),
    "decimal comma": (value(10, 0, "0,1"), "line 11: '0,1' is not a number"),
    "text for a count": (swapped(30, "two"), "line 31: 'two' is not a number"),
    "text in a body line": (value(31, 0, "id"), "line 32: 'id' is not a number"),
    "NaN": (value(33, 2, "nan"), "line 34: z of joint 1 is nan"),
    "infinite": (value(34, 0, "-inf"), "line 35: x of joint 2 is -inf"),
    "too large": (value(34, 0, "1e39"), r"line 35: x of joint 2 is 1e\+39"),
    "a value too few": (swapped(12, LINES[12][:-2]), r"line 13: 11 values, expected 12 \(a joint"),
    "a value too many": (swapped(12, LINES[12] + " 7"), r"line 13: 13 values, expected 12 \(a joint"),
    "a body value too few": (swapped(2, LINES[2][:-2]), r"line 3: 9 values, expected 10 \(a body"),
    "two counts": (swapped(1, "1 1"), r"line 2: 2 values, expected 1 \(a count\)"),
    "fraction of a body": (swapped(1, "1.5"), r"line 2: the number of bodies in frame 1 of 3 is 1\.5, expected a whole number"),
    "negative": (swapped(0, "-3"), "line 1: the number of frames is -3, expected a whole number"),
    "a joint is gone": (swapped(12, None), r"line 29: 1 values, expected 12 \(a joint"),
    "an empty line": (swapped(12, ""), r"line 13: 0 values, expected 12 \(a joint"),
    "a frame too few": (swapped(0, "2"), "line 31: the file goes on after the last of its 2 frames"),
    "a frame too many": (swapped(0, "4"), f"line {len(LINES) + 1}: the file ends where the number of bodies in frame 4 of 4"),
    "a picture": ("\x89PNG\r\n\x1a\n\0\0", "line 1: .* is not a number"),
    "zeros of a broken disk": (kept(20) + "\0" * 500, "line 21: .* is not a number"),
}


@pytest.mark.parametrize("case", BAD)
def test_damaged_file_is_named_with_its_line(tmp_path, case):
    content, message = BAD[case]
    folder = folder_of(tmp_path / "clips", {NAMES[1]: content.encode("latin-1")})
    with pytest.raises(DataError, match=rf"{NAMES[1]}\.skeleton: {message}") as caught:
        read(folder, tmp_path / "store")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "store").exists()


def test_clips_left_out_by_rule_are_recorded(tmp_path):
    listed, late, empty, none = "S001C002P005R002A008", "S018C001P045R001A061", "S001C001P001R001A002", "S001C001P001R001A003"
    whole = text_of(moving(0))
    files = {NAMES[0]: whole, listed: whole, late: whole, empty: text_of([[], [], []]), none: b"0\r\n"}
    folder = folder_of(tmp_path / "set" / "nturgb+d_skeletons", files)
    prose = "The following samples have missing skeletons:\r\n\r\n"
    (tmp_path / "set" / "NTU_RGBD_samples_with_missing_skeletons.txt").write_text(f"{prose}{listed}\r\nS001C002P006R001A008\r\n")
    reasons = {
        listed: "on the owners' list of missing skeletons",
        empty: "has no skeleton",
        none: "has no skeleton",
        late: "not part of this data set: setup > 17",
    }
    for source in (folder, folder.parent):  # the list lies beside the clips, or above them
        store = read(source, tmp_path / "store")
        assert store.labels["clip"].tolist() == [NAMES[0]]
        assert {entry["clip"]: entry["reason"] for entry in store.meta["skipped"]} == reasons
    both = read(folder, tmp_path / "store", NTU120())
    assert both.labels["clip"].tolist() == [NAMES[0], late]
    assert {entry["clip"] for entry in both.meta["skipped"]} == {listed, empty, none}


def test_ntu60_is_a_part_of_ntu120(tmp_path):
    """Set-ups to 17, performers to 40 and actions to 60 are NTU RGB+D 60; NTU RGB+D 120 takes all."""
    inside = ["S001C001P001R001A001", "S017C003P040R002A060"]
    outside = {
        "S018C001P001R001A001": "setup > 17",
        "S001C001P041R001A001": "subject > 40",
        "S001C001P001R001A061": "action > 60",
    }
    names = [*inside, *outside]
    folder = folder_of(tmp_path / "clips", {name: text_of(moving(k, 2)) for k, name in enumerate(names)})
    seen = []
    store = read(folder, tmp_path / "a", NTU60(), lambda *counts: seen.append(counts))
    assert store.labels["clip"].tolist() == inside
    skipped = {entry["clip"]: entry["reason"] for entry in store.meta["skipped"]}
    assert skipped == {name: f"not part of this data set: {reason}" for name, reason in outside.items()}
    assert seen[-1] == (5, 5)
    everything = read(folder, tmp_path / "b", NTU120())
    assert everything.labels["clip"].tolist() == sorted(names)
    assert everything.meta["skipped"] == []


def test_missing_list_beside_the_current_folder(tmp_path, monkeypatch):
    whole = text_of(moving(0, 2))
    folder = folder_of(tmp_path / "set" / "clips", {NAMES[0]: whole, NAMES[1]: whole})
    (folder.parent / "some_missing_skeletons.txt").write_text(f"A line of prose\n\n{NAMES[1]}\n")
    monkeypatch.chdir(folder)
    assert read(".", tmp_path / "store").labels["clip"].tolist() == [NAMES[0]]


def test_zip_archives(tmp_path):
    clips = {name: text_of(moving(k)) for k, name in enumerate([*NAMES, "S018C001P045R001A061"])}
    folder = folder_of(tmp_path / "nturgb+d_skeletons", clips)
    archives = tmp_path / "archives"
    archives.mkdir()
    for archive, names in (("nturgbd_skeletons_s001_to_s017.zip", NAMES), ("s018_to_s032.zip", ["S018C001P045R001A061"])):
        with zipfile.ZipFile(archives / archive, "w", zipfile.ZIP_DEFLATED) as file:
            for name in names:
                file.write(folder / f"{name}.skeleton", f"nturgb+d_skeletons/{name}.skeleton")
    unpacked = read(folder, tmp_path / "a", NTU120())
    assert read(archives, tmp_path / "b", NTU120()).fingerprint == unpacked.fingerprint
    assert read(archives / "nturgbd_skeletons_s001_to_s017.zip", tmp_path / "c").labels["clip"].tolist() == NAMES


def test_wrong_sources(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no NTU RGB\+D clips \(\*\.skeleton, .*\) in .*empty"):
        read(tmp_path / "empty", tmp_path / "store")
    only_late = folder_of(tmp_path / "late", {"S018C001P045R001A061": text_of(moving(0))})
    with pytest.raises(DataError, match=r"every clip in .*late is left out"):
        read(only_late, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_gender_table(tmp_path):
    folder = folder_of(tmp_path / "clips", {name: text_of(moving(k)) for k, name in enumerate(NAMES)})
    table = tmp_path / "genders.csv"
    table.write_text("P,Gender\r\n1,F\r\n3,M\r\n")
    store = read(folder, tmp_path / "store", NTU60(gender_csv=str(table)))
    assert store.labels["gender"].isna().tolist() == [False, True, False]  # performer 8 is not in the table: missing, not guessed
    for text, message in {
        "": "has the columns",
        "Person;Sex\n1;F\n": "expected P,Gender",
        "P,Gender\n1,F\n2,woman\n": "line 3: expected a number and F or M, got '2' and 'woman'",
        "P,Gender\n1,F\nx,F\n": "line 3: expected a number",
        "P,Gender\n1\n": "line 2: expected a number",
        "P,Gender\n": "has no rows",
        f"P,Gender\n1,{'F' * 200_000}\n": "is not a table",
        "P,Gender\n1,F\n1,M\n": "line 3: performer 1 occurs twice",
    }.items():
        table.write_text(text)
        with pytest.raises(DataError, match=message):
            read(folder, tmp_path / "store", NTU60(gender_csv=str(table)))
    with pytest.raises(DataError, match=r"nowhere\.csv cannot be read"):
        read(folder, tmp_path / "store", NTU60(gender_csv=str(tmp_path / "nowhere.csv")))


def test_protocols(tmp_path):
    """Four people, two of whom are on the training list, two replications, two actions, two cameras."""
    names = [f"S001C00{c}P00{p}R00{r}A00{a}" for c in (1, 2) for p in (1, 2, 3, 6) for r in (1, 2) for a in (1, 2)]
    folder = folder_of(tmp_path / "clips", {name: text_of(moving(k)) for k, name in enumerate(names)})
    labels = read(folder, tmp_path / "store").labels
    protocol = NTU60.protocols["xrep"]
    subject = instantiate(protocol, "subject", labels, "ntu60")
    assert set(labels["replication"][subject.test]) == {2}
    assert subject.classes == (1, 2, 3, 6)
    action = instantiate(protocol, "action", labels, "ntu60")
    assert set(labels["subject"][action.test]) == {3, 6}
    with pytest.raises(ProtocolError, match="no gender labels"):
        instantiate(protocol, "gender", labels, "ntu60")
    found = {
        name: instantiate(p, "subject", labels, "ntu60")
        for name, p in NTU60.protocols.items()
        if "subject" in p.splits and "xsetup" not in name
    }
    assert set(labels["camera"][found["xview"].test]) == {1}
    assert set(labels["action"][found["xaction"].test]) == {2}
    assert len(found["xrep-parity"].test) == len(labels) / 2
    with pytest.raises(ProtocolError, match="no training clips"):  # all were filmed in one set-up
        instantiate(NTU60.protocols["xsetup-reid"], "subject", labels, "ntu60")


def test_what_the_owners_state():
    small, large = NTU60.protocols["xrep"].splits["action"].train, NTU120.protocols["xrep"].splits["action"].train
    assert (len(small), len(large)) == (20, 53)
    assert set(small) < set(large)
    assert max(large) == 103
    names = NTU120().actions()
    assert list(names) == list(range(1, 121))
    assert len(set(names.values())) == 120
    assert list(NTU60().actions()) == list(range(1, 61))
    known = {1: "drink water", 11: "reading", 43: "falling down", 58: "shake hands", 60: "walk apart from each other"}
    known |= {61: "put on headphone", 80: "squat down", 99: "run on the spot", 112: "high-five", 120: "rock-paper-scissors"}
    assert {number: names[number] for number in known} == known
    # Two-person actions: 50 to 60 and 106 to 120.
    assert all("other" in names[a] or a in (58,) for a in range(50, 61))
