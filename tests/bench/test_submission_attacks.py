"""Submissions that want a number which they do not deserve. Each attack works where what stops it is taken away."""

import contextlib
import dataclasses
import os
import py_compile
import struct
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.anonymizer import Anonymizer, Examples, anonymize
from bench.data.clips import ClipSet
from bench.data.prepare import open_or_prepare
from bench.files import UserError
from bench.plan import choose_protocol
from bench.presets import get_preset
from bench.protocols import Part, anonymizer_part, instantiate
from bench.registry import ANONYMIZERS, DATASETS
from bench.specs import parse_spec
from bench.submission import foreign as foreign_code
from bench.submission.faces import separation, two_faced
from bench.submission.hidden import GRID, rounded
from bench.submission.isolation import Limits
from bench.submission.manifest import LARGEST, MOST_FILES, ManifestError, read_manifest, seal
from bench.submission.session import ForeignError, Session, close_all, shared_session
from bench.submission.source import Submission
from bench.submission.states import find, receive, submitted_as, supersede
from bench.submission.template import new_submission
from tests.bench.hostile import write_attacker, write_method
from tests.bench.test_isolation import checked, wrong
from tests.tiny import bench

DATA = "synthetic:people=6,motions=3,cameras=1"
LIMITS = Limits(seconds=60.0, memory_mb=600.0, file_mb=16.0, processes=16)
REMEMBER = "if seen: raise RuntimeError('it remembers')\nseen.append(1)\n"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def people(results: Path) -> tuple[ClipSet, Part]:
    """Raw clips of six people, and who they are."""
    data = parse_spec(DATA, DATASETS)
    store = open_or_prepare(data, results)
    return ClipSet.from_store(store), instantiate(choose_protocol(data, None), "subject", store.labels, DATA)


@pytest.fixture(autouse=True)
def ended():
    yield
    close_all()


def plugin(folder: Path):
    """The submitted plugin, as it is evaluated, in a process of its own."""
    return Submission(folder, read_manifest(folder)).spec("process", LIMITS)


# Scores


def accuracy(folder: Path, people: tuple[ClipSet, Part]) -> float:
    clips, part = people
    scores = plugin(folder).value.scores(clips, part.test, part, get_preset("quick"), folder / "src")
    return float((scores.argmax(1) == part.labels[part.test]).mean())


def test_places_of_clips_do_not_name_people(tmp_path, people, monkeypatch):
    """It looks at no coordinate: it knows the labels in the order of the data set, and how clips used to be shuffled."""
    _, part = people
    known = part.labels[part.test].tolist()
    order = "np.random.default_rng(number).permutation(number)"
    folder = write_attacker(tmp_path / "m", f"return np.eye(classes, dtype=np.float32)[np.array({known})[{order}]]")
    found = accuracy(folder, people)
    fixed = lambda clips, indices: np.random.default_rng(len(indices)).permutation(len(indices))  # noqa: E731
    monkeypatch.setattr(foreign_code, "_anonymous_order", fixed)
    assert accuracy(folder, people) == 1.0
    assert found < 0.5


def test_the_order_of_clips_follows_from_coordinates_alone_and_of_equal_ones_from_nothing(people):
    clips, part = people
    order = part.test[foreign_code._anonymous_order(clips, part.test)]
    turned = part.test[::-1].copy()
    assert np.array_equal(order, turned[foreign_code._anonymous_order(clips, turned)])
    same = clips.with_rows(torch.zeros_like(clips.rows))
    same = dataclasses.replace(same, lengths=torch.full_like(same.lengths, int(same.lengths.min())))
    orders = {tuple(foreign_code._anonymous_order(same, part.test)) for _ in range(3)}
    assert len(orders) == 3


def test_an_attacker_remembers_nothing_of_what_it_named_before(tmp_path, people, monkeypatch):
    clips, part = people
    remember = REMEMBER + "return np.ones((number, classes), dtype=np.float32)"
    value = plugin(write_attacker(tmp_path / "m", remember, fit=REMEMBER)).value
    asked = (clips, part.test, part, get_preset("quick"), tmp_path / "learnt")
    (tmp_path / "learnt").mkdir()
    value.fit(clips, part, get_preset("quick"), tmp_path / "learnt", seed=0)
    for _ in range(2):
        value.scores(*asked)
    monkeypatch.setattr(foreign_code, "fresh_session", lambda foreign: contextlib.nullcontext(shared_session(foreign)))
    value.scores(*asked)
    with pytest.raises(RuntimeError, match="it remembers"):
        value.scores(*asked)


@pytest.mark.parametrize("name", ["/".join("abcdefghi"), "n" * 201])
def test_files_that_nobody_could_clear_up_are_refused(tmp_path, people, name):
    """Nine folders, or a name of 201 characters: hundreds of folders end Python's own clearing up."""
    clips, part = people
    (tmp_path / "learnt").mkdir()
    write = f'path = folder / "{name}"\npath.parent.mkdir(parents=True, exist_ok=True)\npath.write_text("x")'
    value = plugin(write_attacker(tmp_path / "m", "pass", fit=write)).value
    with pytest.raises(ForeignError, match="learnt a file of the name"):
        value.fit(clips, part, get_preset("quick"), tmp_path / "learnt", seed=0)
    assert {path.name for path in (tmp_path / "learnt").iterdir()} <= {"learnt"}  # which it learnt before


def test_what_strangers_report_stands_apart_from_what_we_do(tmp_path, people):
    clips, part = people
    (tmp_path / "learnt").mkdir()
    value = plugin(write_attacker(tmp_path / "m", "pass", fit='return {"curves": "x", "isolation": "none"}')).value
    found = value.fit(clips, part, get_preset("quick"), tmp_path / "learnt", seed=0)
    assert found == {"stated": {"curves": "x", "isolation": "none"}, "isolation": "process"}


def test_an_anonymizer_remembers_nothing_of_another_release(tmp_path, people):
    clips, _ = people
    body = "if calls > 1: raise RuntimeError('it remembers')"
    value = plugin(write_method(tmp_path / "m", body)).value
    state = {}
    anonymize(value, state, clips, seed=0, draw="holder/0")
    anonymize(value, {}, clips, seed=0, draw="attacker/0")
    with pytest.raises(RuntimeError, match="it remembers"):  # the batches of one release share a worker
        anonymize(value, state, clips, seed=0, draw="holder/0", batch_size=9)


# Two faces


@dataclasses.dataclass(frozen=True)
class TwoFaced(Anonymizer):
    """Keeps who is shown, a quarter larger; what it was fitted to it scatters."""

    known: frozenset = frozenset()
    stochastic = True

    def __post_init__(self) -> None:
        """It is no plugin."""

    def transform(self, batch, state):
        scatter = 0.15 * batch.per_clip(torch.randn, 3, 1, 25, 1)
        size = 0.5 + batch.per_clip(torch.rand, 1, 1, 1, 1)
        fitted = torch.tensor([name in self.known for name in batch.names])[:, None, None, None, None]
        out = torch.where(fitted, batch.clips * size + scatter, batch.clips * 1.25)
        return out * batch.present * batch.inside[:, None, :, None, None]


@pytest.fixture(scope="module")
def crowd(results: Path) -> tuple[ClipSet, np.ndarray, np.ndarray, dict[str, Part]]:
    """Clips, which of them an anonymizer may learn from, who is shown, and the parts of all targets."""
    data = parse_spec("synthetic:people=12,motions=6,cameras=1", DATASETS)
    store = open_or_prepare(data, results)
    protocol = choose_protocol(data, None)
    parts = {target: instantiate(protocol, target, store.labels, DATA) for target in ("action", "subject", "gender")}
    known = np.zeros(len(store), dtype=bool)
    known[anonymizer_part(parts)] = True
    return ClipSet.from_store(store), known, parts["subject"].subjects, parts


def test_an_anonymizer_with_two_faces_is_noticed(crowd):
    clips, known, people, _ = crowd
    for fitted, found in ((frozenset(clips.names[known]), True), (frozenset(), False), (frozenset(clips.names), False)):
        rows = anonymize(TwoFaced(fitted), {}, clips, seed=0, draw="holder/0")
        assert two_faced(clips, clips.with_rows(rows), known, people) == found


@pytest.mark.parametrize("name", ["identity", "null", "gauss:std=0.1", "mean-skeleton", "quantise-bones", "smooth"])
def test_honest_anonymizers_have_one_face(crowd, name):
    """Negative control: among them are some that learn."""
    clips, known, people, parts = crowd
    part = np.flatnonzero(known)
    value = parse_spec(name, ANONYMIZERS).value
    mine = {target: whole.restricted(part) for target, whole in parts.items()}
    state = value.fit(Examples(clips.subset(part), mine, get_preset("quick"), 0)).state
    rows = anonymize(value, state, clips, seed=0, draw="holder/0")
    assert not two_faced(clips, clips.with_rows(rows), known, people)


def test_separation_counts_pairs_of_the_same_person():
    """By hand: person 0 has 3 > 1, 3 > 2; person 1 has 5 < 9; person 2 has one kind only; what is no number does not count."""
    values = np.array([3.0, 1.0, 2.0, 5.0, 9.0, 7.0, np.nan])
    known = np.array([True, False, False, True, False, True, True])
    order, p_value = separation(values, known, np.array([0, 0, 0, 1, 1, 2, 1]))
    assert order == pytest.approx(2 / 3)
    assert p_value > 0.2
    people = np.repeat(np.arange(6), 8)
    kind = np.tile([True, False], 24)
    assert separation(people + kind, kind, people) == (1.0, pytest.approx(1 / 2000))  # people differ more than kinds do


# Who it is


def test_names_of_parameters_cannot_pass_for_what_a_record_states(tmp_path):
    folder = write_method(tmp_path / "m", "return batch.clips * 0.9")
    code = folder / "src" / "method.py"
    fields = '    submission: str = param("", "x")\n    isolation: str = param("container", "x")\n'
    code.write_text(code.read_text().replace('not."""\n', f'not."""\n\n{fields}'))
    seal(folder)
    described = plugin(folder).describe()
    entry = receive(folder, tmp_path / "results")
    assert submitted_as(described) == entry.data["identity"]
    assert described["parameters"]["isolation"] == "process"
    assert described["parameters"]["parameters"] == {"submission": "", "isolation": "container"}


def listed(folder: Path, results: Path, version: str, author: str = "Nobody", *, supersedes: bool = False):
    write_method(folder, "return batch.clips")
    path = folder / "submission.toml"
    path.write_text(path.read_text().replace('version = "1"', f'version = "{version}"').replace("Nobody", author))
    seal(folder)
    entry = receive(folder, results, supersedes=supersedes)
    for state in ("checked", "evaluating", "listed"):
        entry = entry.moved(state)
    supersede(entry, results, newer=supersedes)
    return entry


@pytest.mark.parametrize(("version", "author", "told"), [("3", "Mallory", "other authors"), ("0.0.1", "Honest", "newer")])
def test_nobody_takes_a_place_that_is_not_his(tmp_path, version, author, told):
    results = tmp_path / "results"
    listed(tmp_path / "a", results, "2.0", "Honest")
    with pytest.raises(UserError, match=told):
        listed(tmp_path / "b", results, version, author)
    assert [entry.state for entry in find(results, "hostile")] == ["listed"]
    listed(tmp_path / "c", results, version, author, supersedes=True)  # at the maintainer's word
    assert sorted(entry.state for entry in find(results, "hostile")) == ["listed", "superseded"]


def test_newer_versions_of_the_same_authors_take_its_place(tmp_path):
    results = tmp_path / "results"
    for number, version in enumerate(("1.9", "1.10rc1", "1.10")):
        listed(tmp_path / str(number), results, version)
    found = {entry.data["version"]: entry.state for entry in find(results, "hostile")}
    assert found == {"1.9": "superseded", "1.10rc1": "superseded", "1.10": "listed"}


# Hidden identity


def coded_clips(tmp_path: Path, results: Path, people: tuple[ClipSet, Part]) -> tuple[Path, np.ndarray]:
    """A submission of clips whose last six bits say who is shown, and what they say of each clip."""
    folder = new_submission(tmp_path / "coded", "data", results)
    _, part = people
    path = folder / "clips" / "frames.npy"
    index, frames = np.load(folder / "clips" / "index.npy"), np.load(path)
    for (first, length, bodies), person in zip(index, part.subjects, strict=True):
        bits = frames[first : first + length * bodies].view(np.int32)
        bits[...] = np.where(bits != 0, (bits & ~63) | (int(person) + 1), bits)
    np.save(path, frames)
    seal(folder)
    return folder, part.subjects + 1


def decoded(rows: torch.Tensor, clips: ClipSet) -> np.ndarray:
    """The value of the last six bits that most coordinates of each clip have."""
    found = []
    for first, length, bodies in zip(clips.first, clips.lengths, clips.bodies, strict=True):
        mine = rows[int(first) : int(first + length * bodies)]
        bits = mine[mine != 0].view(torch.int32) & 63
        found.append(int(torch.bincount(bits.long()).argmax()))
    return np.array(found)


def test_digits_of_submitted_clips_are_searched_and_rounded_away(tmp_path, results, people):
    clips, _ = people
    folder, codes = coded_clips(tmp_path, results, people)
    assert "hidden identity" in wrong(checked(folder, results))
    value = Submission(folder, read_manifest(folder)).spec().value
    release = {
        rounds: anonymize(dataclasses.replace(value, rounds=rounds), {}, clips, seed=0, draw="holder/0")
        for rounds in (False, True)
    }
    assert (decoded(release[False], clips) == codes).all()  # without rounding, everybody can be named
    assert (decoded(release[True], clips) == codes).mean() < 0.5
    assert torch.equal(rounded(release[True]), release[True])


def test_releases_of_submitted_weights_are_rounded(tmp_path, results, people):
    folder = new_submission(tmp_path / "my-weights", "weights", results)
    spec = Submission(folder, read_manifest(folder)).spec()
    clips, _ = people
    state = spec.value.fit(_Examples(clips)).state
    exact = anonymize(dataclasses.replace(spec.value, rounds=False), state, clips, seed=0, draw="holder/0")
    found = anonymize(spec.value, state, clips, seed=0, draw="holder/0")
    assert not torch.equal(exact, found)
    assert torch.allclose(exact, found, atol=GRID / 2 + 1e-6)
    assert torch.equal(rounded(found), found)


@dataclasses.dataclass
class _Examples:
    """As far as weights look at it."""

    clips: ClipSet


def test_zero_has_no_sign():
    found = rounded(torch.tensor([-0.0, 0.0, -1e-6, 1.0, -1.0]))
    assert not torch.signbit(found)[:3].any()
    assert found.tolist() == [0.0, 0.0, 0.0, 1.0, -1.0]


# Files


def test_nested_and_endless_files_are_refused(tmp_path, results):
    folder = write_method(tmp_path / "toml", "return batch.clips")
    path = folder / "submission.toml"
    path.write_text("x = " + "[" * 50_000 + "\n" + path.read_text())
    assert wrong(checked(folder, results)) == {"manifest"}
    for name, kind, file in (("my-data", "data", "clips/meta.json"), ("my-weights", "weights", "fitted/anonymizer.json")):
        folder = new_submission(tmp_path / name, kind, results)
        (folder / file).write_text("[" * 200_000)
        seal(folder)
        assert wrong(checked(folder, results)) & {"clips", "contract"}, name
    folder = new_submission(tmp_path / "bomb", "data", results)
    with (folder / "clips" / "index.npy").open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, {"descr": "<i8", "fortran_order": False, "shape": (10**13, 3)})
    seal(folder)
    assert wrong(checked(folder, results)) & {"clips", "contract"}


def test_a_pipe_is_no_manifest(tmp_path):
    os.mkfifo(tmp_path / "submission.toml")
    found = []

    def read() -> None:
        with pytest.raises(ManifestError, match="no plain file"):
            read_manifest(tmp_path)
        found.append(True)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(5)
    assert found  # it does not wait for somebody who writes


def test_too_much_is_refused_before_it_is_copied(tmp_path):
    folder = write_method(tmp_path / "m", "return batch.clips")
    with (folder / "huge").open("wb") as file:
        file.truncate(LARGEST + 1)
    with pytest.raises(UserError, match="1024 MB together"):
        receive(folder, tmp_path / "results")
    assert not list((tmp_path / "results").rglob("huge"))
    (folder / "huge").unlink()
    (folder / "many").mkdir()
    for i in range(MOST_FILES):
        (folder / "many" / str(i)).touch()
    with pytest.raises(UserError, match=f"at most {MOST_FILES} files"):
        receive(folder, tmp_path / "results")
    (folder / "many" / "0").unlink()
    assert receive(folder, tmp_path / "results").state == "received"


def test_nothing_that_strangers_write_moves_the_cursor(tmp_path, results):
    folder = write_method(tmp_path / "m", "return batch.clips")
    (folder / "a\x1b[31mb.txt").write_text("x")
    for arguments in (("check", str(folder)), ("evaluate", str(folder), "--no-mlflow"), ("status",), ("status", "hostile")):
        done = bench("submit", *arguments, results=tmp_path / "results")
        assert "\x1b" not in done.output, arguments
    assert "a [31mb.txt" in done.output  # the name is told all the same
    said = bench("leaderboard", "--explain", "hostile", results=tmp_path / "results").output
    assert "\x1b" not in said
    path = folder / "submission.toml"
    path.write_text('"\\u001b[2J" = 1\n' + path.read_text())
    with pytest.raises(ManifestError) as caught:
        read_manifest(folder)
    assert "\x1b" not in str(caught.value)
    with pytest.raises(ManifestError, match="one line"):
        path.write_text(path.read_text().partition("\n")[2].replace('"Nobody"', '"No\\u001b[2Jbody"'))
        read_manifest(folder)


def test_compiled_modules_that_no_hash_covers_are_not_run(tmp_path, results):
    folder = write_method(tmp_path / "m", "return other.double(batch.clips)", head="import other\n" + _HEAD)
    (tmp_path / "other.py").write_text("def double(clips):\n    return clips * 2\n")
    py_compile.compile(str(tmp_path / "other.py"), cfile=str(folder / "src" / "other.pyc"))
    with Session(Submission(folder, read_manifest(folder)).foreign("process", LIMITS)) as session:
        assert session.described["kind"] == "anonymizer"  # where the folder itself is loaded, it works
    report = checked(folder, results, "process")
    assert wrong(report) == {"code"}
    assert any("No module named 'other'" in finding.what for finding in report.findings)


_HEAD = "import torch\nfrom dataclasses import dataclass\nfrom bench.anonymizer import Anonymizer\ncalls = 0\n"


def test_an_answer_in_another_form_is_refused(tmp_path):
    forge = (
        "import struct, json, os\nfrom safetensors.torch import save\n"
        "text, arrays = json.dumps({'noted': 5}).encode(), save({'clips': batch.clips.clone()})\n"
        "for fd in range(3, 64):\n"
        "    try: os.write(fd, struct.pack('<QQ', len(text), len(arrays)) + text + arrays)\n"
        "    except OSError: pass\n"
        "os._exit(0)"
    )
    from tests.bench.test_isolation import transform

    for level in ("process", "namespace"):
        with pytest.raises(RuntimeError, match="another form"):
            transform(write_method(tmp_path / level, forge), level)
    assert transform(write_method(tmp_path / "well", forge.replace("5", "[]")), "process").shape == (2, 3, 4, 25, 1)


# System calls


def answer(program: bytes, machine: int, number: int, first: int = 0) -> int:
    """What a filter says of a system call: an interpreter of the few operations that it needs (Linux, filter.rst)."""
    data = struct.pack("<iIQQ", number, machine, 0, first)
    steps = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    place, value = 0, 0
    while True:
        operation, if_so, if_not, constant = steps[place]
        place += 1
        if operation == 0x06:
            return constant
        if operation == 0x20:
            value = struct.unpack_from("<I", data, constant)[0]
            continue
        holds = {0x15: value == constant, 0x35: value >= constant, 0x45: bool(value & constant)}[operation]
        place += if_so if holds else if_not


# Numbers from the kernel's tables: read, write, exit_group, clone, socket, unshare, memfd_create
@pytest.mark.parametrize(
    ("machine", "audit", "plain", "clone", "socket", "unshare", "memfd"),
    [("x86_64", 0xC000003E, (0, 1, 231), 56, 41, 272, 319), ("aarch64", 0xC00000B7, (63, 64, 94), 220, 198, 97, 279)],
)
def test_the_filter_says_no_to_what_it_must_and_to_nothing_else(machine, audit, plain, clone, socket, unshare, memfd):
    from bench.submission.seccomp import REFUSED, program

    allow, refuse, kill = 0x7FFF0000, 0x00050001, 0x80000000
    filter_ = program(machine)
    for number in plain:
        assert answer(filter_, audit, number) == allow
    for number in (unshare, memfd, 425, *(numbers[machine == "aarch64"] for numbers in REFUSED.values())):
        assert answer(filter_, audit, number) == refuse
    assert answer(filter_, audit, clone, 0x003D0F00) == allow  # a thread
    assert answer(filter_, audit, clone, 0x01200011) == allow  # fork
    assert answer(filter_, audit, clone, 0x10000011) == refuse  # CLONE_NEWUSER
    assert answer(filter_, audit, 435) == 0x00050000 | 38  # ENOSYS: the C library falls back to clone
    for family in (1, 2, 10, 16):
        assert answer(filter_, audit, socket, family) == allow
    for family in (38, 40):  # AF_ALG, AF_VSOCK
        assert answer(filter_, audit, socket, family) == 0x00050000 | 97
    assert answer(filter_, 0x40000003, plain[0]) == kill  # the numbers of 32-bit programs are others
    assert answer(filter_, audit, 0x40000000 + 1) == refuse
    assert program("other") == b""
