"""What every shallow attacker must do, and what each is there to find."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import binom

from attackers.features import bone_features
from attackers.shallow import BonesKNN, BonesLDA, FlatSVM, Nuisance, ShallowAttacker
from bench.data.clips import ClipSet
from bench.data.normalisation import normalise_store
from bench.data.store import ClipStore, ClipWriter
from bench.data.synthetic import Synthetic
from bench.presets import PRESETS
from bench.protocols import Part, instantiate
from bench.registry import ATTACKERS
from bench.skeleton import Layout, get_layout
from bench.specs import parse_spec
from tests.anonymizers.samples import clip_set

QUICK = PRESETS["quick"]
SPECS = {name: name for name in ATTACKERS.names() if issubclass(ATTACKERS[name].load(), ShallowAttacker)}
SPECS |= {"stats-rf": "stats-rf:trees=100", "gait-dyn": "gait-dyn:rounds=5"}  # enough to show that they work
BODY_READERS = {name: spec for name, spec in SPECS.items() if name not in ("nuisance", "shuffled-labels")}
TINY = Layout(
    name="tiny",
    joints=("hip", "spine", "head", "left shoulder", "right shoulder"),
    parents=(0, 0, 1, 1, 1),
    centre=1,
    spine=(0, 1),
    shoulders=(3, 4),
    parts={"body": (0, 1, 2, 3, 4)},
)


def every_attacker(specs=SPECS):
    return pytest.mark.parametrize("attacker", [parse_spec(s, ATTACKERS).value for s in specs.values()], ids=list(specs))


def made_up(layout, lengths, num_bodies=1, bodies=None, seed=0):
    """A ClipSet of random bodies with given numbers of frames (N,) and of bodies (N,)."""
    lengths = torch.as_tensor(lengths)
    bodies = torch.ones_like(lengths) if bodies is None else torch.as_tensor(bodies)
    owned = lengths * bodies
    rows = torch.randn((int(owned.sum()), 3, layout.num_joints), generator=torch.Generator().manual_seed(seed))
    names = np.array([f"c{i}" for i in range(len(lengths))], dtype=object)
    return ClipSet(rows, owned.cumsum(0) - owned, lengths, bodies, names, layout, num_bodies, 30.0)


def part_of(labels, train, validation, test, target="subject"):
    labels = np.asarray(labels)
    every = np.arange(len(labels))
    return Part(target, tuple(range(labels.max() + 1)), labels, *map(np.asarray, (train, validation, test)), labels, every)


def alternating(classes, each):
    """Labels and a part in which every class has `each` clips: a quarter tests, a quarter validates."""
    labels = np.tile(np.arange(classes), each)
    turn = np.arange(len(labels)) // classes % 4
    return part_of(labels, *(np.flatnonzero(mask) for mask in (turn < 2, turn == 2, turn == 3)))


def attack(attacker, clips, part, folder, seed=0):
    folder.mkdir(exist_ok=True)
    info = attacker.fit(clips, part, QUICK, folder, seed=seed)
    assert info["clips"] == len(part.train) + len(part.validation)
    return attacker.scores(clips, part.test, part, QUICK, folder)


def hits(scores, part):
    return int((scores.argmax(axis=1) == part.labels[part.test]).sum())


def beyond_chance(part):
    """Number of hits that guessing reaches once in a thousand."""
    return binom.ppf(0.999, len(part.test), part.chance)


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Synthetic people with some of the dials at zero, normalised: their clips and the part of a target."""

    def make(**dials):
        folder = tmp_path_factory.mktemp("people")
        data = Synthetic(people=6, motions=8, cameras=1, **dials)
        meta = {"frame_rate": data.frame_rate}
        layout = get_layout(data.layout)
        with ClipWriter(folder / "raw", layout, meta) as writer:
            data.read(None, writer, lambda done, total: None)
        raw = ClipStore.open(folder / "raw")
        with ClipWriter(folder / "clips", layout, meta) as writer:
            normalise_store(raw, writer, "view")
        clips = ClipSet.from_store(ClipStore.open(folder / "clips"))
        return clips, instantiate(data.protocols["xrep"], "subject", raw.labels, "synthetic"), raw.labels

    return make


@pytest.fixture(scope="module")
def everything(people):
    return people()


# --- contract --------------------------------------------------------------------------------------------------------


@every_attacker()
@pytest.mark.parametrize(("layout", "classes"), [("tiny", 2), ("utd-mhad", 5), ("ntu", 3)])
def test_rows_are_probabilities_and_the_same_every_time(attacker, layout, classes, tmp_path):
    layout = TINY if layout == "tiny" else get_layout(layout)
    part = alternating(classes, 8)
    lengths = 1 + np.random.default_rng(0).integers(0, 12, len(part.labels))
    lengths[part.test[0]] = lengths[part.train[0]] = 1
    clips = made_up(layout, lengths, num_bodies=2, bodies=1 + np.arange(len(lengths)) % 2)
    clips.rows[clips.first[part.test[1]] : clips.first[part.test[1] + 1]] = 0  # no body at all
    scores, again = (attack(attacker, clips, part, tmp_path / name) for name in "ab")
    assert scores.tobytes() == again.tobytes()
    assert scores.dtype == np.float32
    assert scores.shape == (len(part.test), classes)
    assert scores.min() >= 0
    assert scores.sum(axis=1) == pytest.approx(1, abs=1e-5)
    backwards = attacker.scores(clips, part.test[::-1].copy(), part, QUICK, tmp_path / "a")
    assert backwards[::-1] == pytest.approx(scores, abs=1e-5)


@every_attacker()
def test_a_class_without_training_clips_is_refused(attacker, tmp_path):
    clips = made_up(TINY, [3] * 8)
    with pytest.raises(ValueError, match="training clips of all 3 classes of subject, got 2"):
        attacker.fit(clips, part_of([0, 0, 0, 1, 1, 1, 2, 2], [0, 1, 3, 4], [2, 5], [6, 7]), QUICK, tmp_path, seed=0)


@every_attacker()
def test_the_test_clips_are_not_learnt_from(attacker, tmp_path):
    part = alternating(3, 8)
    clips = made_up(TINY, [6] * 24)
    honest = attack(attacker, clips, part, tmp_path / "a")
    other = replace(part, labels=part.labels.copy())
    other.labels[part.test] = 0
    rows = clips.rows.clone()
    for i in part.test:
        rows[clips.first[i] : clips.first[i] + 6] = 7.0
    (tmp_path / "b").mkdir()
    attacker.fit(clips.with_rows(rows), other, QUICK, tmp_path / "b", seed=0)
    assert attacker.scores(clips, part.test, part, QUICK, tmp_path / "b").tobytes() == honest.tobytes()


@every_attacker(BODY_READERS)
def test_one_pose_for_all_tells_nothing_whatever_the_length_of_a_clip(attacker, tmp_path):
    part = alternating(4, 8)
    clips = made_up(TINY, 5 + 9 * part.labels)
    pose = clips.with_rows(clips.rows[:1].expand_as(clips.rows).contiguous())
    scores = attack(attacker, pose, part, tmp_path)
    assert (scores == scores[0]).all()


@every_attacker({name: spec for name, spec in SPECS.items() if name != "flat-svm"})  # see attackers.shallow
def test_no_class_is_favoured_for_its_number_of_clips(attacker, tmp_path):
    """Nothing to learn, nine tenths of the clips in one class: it must not be named nine times in ten."""
    labels = np.arange(400) % 10 == 0
    part = part_of(labels.astype(int), np.arange(160), np.arange(160, 200), np.arange(200, 400))
    clips = made_up(TINY, np.random.default_rng(0).integers(3, 60, 400))
    scores = attack(attacker, clips, part, tmp_path)
    assert 0.25 < (scores[:, 1] > 0.5).mean() < 0.75


# --- controls --------------------------------------------------------------------------------------------------------


@every_attacker(BODY_READERS)
def test_people_are_found(attacker, everything, tmp_path):
    clips, part, _ = everything
    assert hits(attack(attacker, clips, part, tmp_path), part) > 1.5 * beyond_chance(part)


def test_few_clips_of_many_people_are_learnt_from(people, tmp_path):
    """With three clips a person the trees of gait-dyn once contradicted its discriminants, and named nobody right."""
    clips, part, _ = people(setup=0.0, body=0.0, dynamics=2.0)
    known = np.concatenate([part.train, part.validation])
    few = np.concatenate([known[part.labels[known] == k][:3] for k in range(len(part.classes))])
    part = replace(part, train=np.sort(few), validation=np.array([], dtype=int))
    attacker = parse_spec("gait-dyn", ATTACKERS).value
    assert hits(attack(attacker, clips, part, tmp_path), part) > 1.5 * beyond_chance(part)


@every_attacker()
def test_shuffled_labels_leave_chance(attacker, everything, tmp_path):
    clips, part, table = everything
    clips = replace(clips, nuisance=torch.tensor(table[["setup", "camera"]].to_numpy(dtype=float)))
    shuffled = replace(part, labels=np.random.default_rng(0).permutation(part.labels))
    assert hits(attack(attacker, clips, shuffled, tmp_path), shuffled) <= beyond_chance(part)


def test_each_channel_is_found_by_the_attacker_made_for_it_and_by_no_other(people, tmp_path):
    found = {}
    for channel, dials in {"body": {"body": 1.0, "dynamics": 0.0}, "movement": {"body": 0.0, "dynamics": 1.0}}.items():
        clips, part, _ = people(setup=0.0, **dials)
        for name in ("bones-lda", "bones-knn", "gait-dyn"):
            scores = attack(parse_spec(name, ATTACKERS).value, clips, part, tmp_path / f"{channel}-{name}")
            found[channel, name] = hits(scores, part) / beyond_chance(part)
    assert min(found["body", "bones-lda"], found["body", "bones-knn"], found["movement", "gait-dyn"]) > 1.5
    assert max(found["movement", "bones-lda"], found["movement", "bones-knn"], found["body", "gait-dyn"]) <= 1


def test_nuisance_reads_rooms_and_lengths_and_never_the_body(everything, tmp_path):
    clips, part, table = everything
    rooms = torch.tensor(table["setup"].to_numpy(dtype=float))[:, None]
    rooms[::7] = torch.nan
    known = replace(clips, nuisance=torch.cat([rooms, torch.full_like(rooms, torch.nan)], dim=1))
    scores = attack(Nuisance(), known, part, tmp_path / "rooms")
    assert hits(scores, part) > beyond_chance(part)
    blank = known.with_rows(torch.zeros_like(clips.rows))
    assert np.array_equal(Nuisance().scores(blank, part.test, part, QUICK, tmp_path / "rooms"), scores)
    tied = alternating(4, 12)
    lengths = made_up(TINY, 5 + 9 * tied.labels)
    assert hits(attack(Nuisance(), lengths, tied, tmp_path / "lengths"), tied) == len(tied.test)


# --- details ---------------------------------------------------------------------------------------------------------


def test_an_svm_with_many_clips_learns_from_as_many_of_each_class():
    labels = np.repeat([0, 1, 2], [50, 20, 4])
    part = part_of(labels, np.arange(0, 74, 2), np.arange(1, 74, 2), [])
    chosen = FlatSVM(most_clips=20).training_clips(part, seed=0)
    assert np.bincount(labels[chosen]).tolist() == [8, 8, 4]
    assert (np.diff(chosen) > 0).all()
    assert chosen.tolist() != FlatSVM(most_clips=20).training_clips(part, seed=1).tolist()
    assert FlatSVM().training_clips(part, seed=0).tolist() == list(range(74))


def test_subset_keeps_what_is_known_of_each_clip():
    clips = replace(made_up(TINY, [2, 3, 4]), nuisance=torch.tensor([[1.0], [2.0], [3.0]]))
    assert clips.subset(np.array([2, 0])).nuisance.tolist() == [[3.0], [1.0]]


@pytest.mark.parametrize("attacker", [BonesLDA(), BonesKNN()])
def test_rounding_of_equal_bones_names_nobody(attacker, tmp_path):
    """Everybody has the same bones and holds a posture of their own: only the last digits of lengths could tell them apart."""
    layout, rng = get_layout("ntu"), torch.Generator().manual_seed(0)
    people, each = 4, 12
    postures = torch.nn.functional.normalize(torch.randn(people, 3, 25, generator=rng), dim=1)
    posed = postures.repeat_interleave(each, dim=0)
    directions = torch.nn.functional.normalize(posed + 0.05 * torch.randn(people * each, 3, 25, generator=rng), dim=1)
    joints, parents = torch.zeros(people * each, 3, 25), dict(layout.bones)
    for joint in layout.order:
        if joint in parents:
            joints[:, :, joint] = joints[:, :, parents[joint]] + 0.3 * directions[:, :, joint]
    clips = clip_set(joints[:, :, None, :, None].expand(-1, -1, 8, -1, -1).contiguous())
    labels = np.repeat(np.arange(people), each)
    place = np.tile(np.arange(each), people)
    sides = [np.flatnonzero(place % 3 == side) for side in range(3)]
    part = Part("subject", tuple(range(people)), labels, *sides, subjects=labels, performances=np.arange(len(labels)))
    attacker.fit(clips, part, QUICK, tmp_path, seed=0)
    scores = attacker.scores(clips, part.test, part, QUICK, tmp_path)
    np.testing.assert_allclose(scores, scores[:1].repeat(len(scores), axis=0), atol=1e-6)
    raw = bone_features(clips.whole(torch.arange(len(labels))), layout).double().numpy()
    assert len(np.unique(raw, axis=0)) > people  # positive control: the last digits do differ
