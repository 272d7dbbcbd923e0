"""Damaged files of every reader: each is read, or refused with one message; nothing else happens.

The fuzzer (`benchmarks/fuzz.py`) looks for such files for hours; here they are drawn in seconds. What it found stands below.
"""

import struct
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.data import etri, sources
from bench.data.dataset import DataError
from bench.data.ntu_files import FormatError, parse_skeleton
from bench.data.sources import Member, open_source
from benchmarks import fuzz

TARGETS = fuzz.targets()
WORDS = [b"", b"nan", b"-inf", b"1e400", b"999999999", b"-1", b"0", b"\x00", b"\xff\xfe", b"\n", b",", b'"', b"{", b"1000000\n"]
EDITS = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 40), st.one_of(st.sampled_from(WORDS), st.binary(max_size=8))),
    min_size=1,
    max_size=4,
)


def edited(data, edits, kept):
    """Bytes of a file after replacing some stretches of it, cut to a share of its length."""
    for place, length, new in edits:
        at = int(place * len(data))
        data = data[:at] + new + data[at + length :]
    return data[: int(kept * len(data)) + 1]


@pytest.mark.parametrize("name", TARGETS)
def test_whole_files_are_read(name, tmp_path):
    for seed in TARGETS[name].seeds:
        assert fuzz.try_out(TARGETS[name], seed, tmp_path)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=40, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(which=st.integers(0, 9), edits=EDITS, kept=st.one_of(st.just(1.0), st.floats(0, 1)))
def test_damaged_files_are_read_or_refused(name, which, edits, kept):
    target = TARGETS[name]
    with tempfile.TemporaryDirectory() as folder:
        fuzz.try_out(target, edited(target.seeds[which % len(target.seeds)], edits, kept), Path(folder))


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("data", [b"", b"\n", b"\x00" * 1000, b"1000000\n", b"PK\x05\x06" + bytes(18), bytes(range(256)) * 4])
def test_files_of_another_kind_are_refused(name, data, tmp_path):
    assert not fuzz.try_out(TARGETS[name], data, tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"1000000\r\n" + b"0\r\n" * 1000, "line 1002: the file ends"),
        (b"1000000\r\n" + b"0\r\n" * 1_000_000, "line 1: 1e\\+06 frames, expected at most 100000"),
        (b"3000\r\n" + b"2999\r\n" * 3000, "line 3: 1 values, expected 10"),  # of each number a body is to be made
    ],
)
def test_what_a_header_claims_takes_no_memory(text, message, within):
    with within(40 * len(text) + 5e6), pytest.raises(FormatError, match=message):
        parse_skeleton(text)


def test_many_bodies_take_no_memory(within):
    header, line = TARGETS["etri"].seeds[0].split(b"\n")[:2]
    lines = [b",".join([b"%d" % k, b"%d" % k, *line.split(b",")[2:]]) for k in range(2000)]
    data = b"\n".join([header, *lines])
    with within(20 * len(data)), pytest.raises(DataError, match="2000 bodies, expected at most 10"):
        etri.read_clip(Member("a.csv", "/data/a.csv", "copy it again", lambda: data))


@pytest.fixture
def largest(monkeypatch):
    """A limit that takes no time to exceed."""
    monkeypatch.setattr(sources, "LARGEST", 2**23)
    return 2**23


def read_all(archive):
    with open_source(archive, r"\w+\.txt", "text files", lambda name, reason: None) as members:
        return [(member.name, member.read()) for member in members]


def test_a_zip_bomb_is_refused_unread(tmp_path, largest, within):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.txt", "w") as file:
        for _ in range(largest // 2**20 + 1):
            file.write(bytes(2**20))
    assert path.stat().st_size < largest / 500
    with within(5e6), pytest.raises(DataError, match=rf"a\.txt of .*: {largest + 2**20} bytes, expected at most {largest}"):
        read_all(path)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (zipfile.ZIP_DEFLATED, "a.txt of .* cannot be read"),
        (zipfile.ZIP_BZIP2, "a.txt of .* cannot be read .*packed by method 12, expected deflate"),
        (zipfile.ZIP_LZMA, "a.txt of .* cannot be read .*packed by method 14, expected deflate"),
    ],
)
def test_a_zip_that_lies_about_its_size_unpacks_no_more_than_it_says(tmp_path, within, method, message):
    path = tmp_path / "liar.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a.txt", bytes(40_000_000))
    data = path.read_bytes()
    path.write_bytes(data.replace(struct.pack("<L", 40_000_000), struct.pack("<L", 100)))
    with within(8e6), pytest.raises(DataError, match=message):
        read_all(path)


def test_the_head_of_a_tar_member_has_bounds(tmp_path, within):
    path = tmp_path / "head.tar.gz"
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT, pax_headers={"comment": "x" * 40_000_000}) as archive:
        archive.addfile(tarfile.TarInfo("a.txt"))
    with within(8e6), pytest.raises(DataError, match=r"is damaged or cut short .*a head of 4000"):
        read_all(path)


def test_a_tar_bomb_is_refused_and_not_unpacked(tmp_path, largest, within):
    path = tmp_path / "bomb.tar.xz"

    class Zeros:
        def read(self, size):
            return bytes(size)

    with tarfile.open(path, "w:xz", preset=0) as archive:
        entry = tarfile.TarInfo("a.txt")
        entry.size = largest + 1
        archive.addfile(entry, Zeros())
    with within(5e6), pytest.raises(DataError, match=f"{largest + 1} bytes, expected at most {largest}"):
        read_all(path)


@pytest.mark.parametrize("ending", ["zip", "tar"])
def test_names_that_lead_out_of_the_archive_lead_nowhere(tmp_path, ending):
    inner = tmp_path / "inner"
    inner.mkdir()
    path = inner / f"archive.{ending}"
    path.write_bytes(fuzz.targets()[ending].seeds[0])
    before = sorted(tmp_path.rglob("*"))
    assert [name for name, _ in read_all(path)] == ["a.txt", "b.txt"]
    assert sorted(tmp_path.rglob("*")) == before


def test_names_in_an_archive_do_not_steer_a_terminal(tmp_path):
    path = tmp_path / "archive.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("\x1b[2J\n/a.txt", "1 2 3")
    path.write_bytes(path.read_bytes().replace(b"1 2 3", b"1 2 4"))
    with pytest.raises(DataError, match=r"^\?\[2J\?/a\.txt of .* cannot be read"):
        read_all(path)


def test_links_in_a_tar_are_not_followed(tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    path = tmp_path / "links.tar"
    with tarfile.open(path, "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            entry = tarfile.TarInfo("a.txt")
            entry.type, entry.linkname = kind, str(secret)
            archive.addfile(entry)
    with pytest.raises(DataError, match="no text files"):
        read_all(path)


# Found by the fuzzer


def test_a_header_names_more_columns_than_lines_have(tmp_path):
    header, lines = TARGETS["etri"].seeds[0].split(b"\n", 1)
    shorter = b"\n".join(b",".join(line.split(b",")[:50]) for line in lines.split(b"\n")[:2])
    assert not fuzz.try_out(TARGETS["etri"], header + b"\n" + shorter, tmp_path)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("ntu-2s-agcn", b"(" + b"\n====\n" + b"\x93NUMPY\x01\x00\x10\x00{'descr': '<f4' "),
        ("ntu-ctr-gcn", None),
        ("msrc-12", b"1 2 3" + fuzz.PARTS + b"Tick;Gesture\n12\x1f\x1f;G1\n"),
        ("msrc-12", b"1 2 3" + fuzz.PARTS + b"Tick;Gesture\n" + b"1" * 5000 + b";G1\n"),
        ("ntu-genders", b"P,Gender\n" + b"1" * 5000 + b",F\n"),
        ("own", b'clip,action,"@1,F\n2b,\n'),
    ],
)
def test_what_the_fuzzer_found(name, data, tmp_path):
    if data is None:  # the name of a member that is no UTF-8, in its own header only
        whole = fuzz.targets()[name].seeds[0]
        at = whole.rindex(b"PK\x03\x04", 0, whole.rindex(b"y_train.npy", 0, whole.index(b"PK\x01\x02")))
        data = whole[: at + 6] + struct.pack("<H", 0x800) + whole[at + 8 : at + 30] + b"\xf8" + whole[at + 31 :]
    assert not fuzz.try_out(TARGETS[name], data, tmp_path)


def test_arrays_of_absurd_shapes_are_refused(tmp_path):
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 3, 300, 25, 2), }".ljust(117) + "\n"
    data = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + bytes(1000)
    seed = TARGETS["ntu-2s-agcn"].seeds[0]
    assert not fuzz.try_out(TARGETS["ntu-2s-agcn"], seed.split(fuzz.PARTS)[0] + fuzz.PARTS + data, tmp_path)
