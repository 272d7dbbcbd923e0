"""What `bench data check` finds, in clips spoilt by hand."""

import numpy as np
import pytest
from click.testing import CliRunner

from bench.cli import main
from bench.data.quality import check, clip_quality
from bench.data.store import ClipStore, ClipWriter
from bench.protocols import Protocol, Split
from bench.skeleton import get_layout

LAYOUT = get_layout("ntu")


def standing(frames=20, seed=0):
    """A pose that sways slowly: bones keep their lengths."""
    pose = np.random.default_rng(seed).normal(size=(3, 1, 25, 1)) * 0.4 + 3
    return (pose + 0.005 * np.arange(frames).reshape(1, -1, 1, 1)).astype(np.float32)


def test_a_sound_clip_has_nothing():
    found = clip_quality(standing(), LAYOUT)
    assert (found.absent, found.jumps, found.swaps) == (0, 0, 0)
    assert found.unstable == pytest.approx(0, abs=1e-5)


def test_absent_frames_are_counted_and_not_taken_for_jumps():
    clip = standing()
    clip[:, 5:10] = 0
    found = clip_quality(clip, LAYOUT)
    assert found.absent == 0.25
    assert found.jumps == 0


def test_a_jump_there_and_back_is_two():
    clip = standing()
    clip[0, 7, 3] += 1.5
    assert clip_quality(clip, LAYOUT).jumps == 2


def test_a_joint_at_the_origin_does_not_jump():
    clip = standing()
    clip[:, 7, 3] = 0
    assert clip_quality(clip, LAYOUT).jumps == 0


def test_a_joint_at_the_origin_is_not_seen():
    clip = standing()
    clip[:, 5:10] = 0  # no body: of the other fifteen frames
    clip[:, 10:13, 3] = 0
    unseen = clip_quality(clip, LAYOUT).unseen
    assert unseen[3] == pytest.approx(3 / 15)
    assert np.delete(unseen, 3).max() == 0
    assert np.isnan(clip_quality(np.zeros_like(clip), LAYOUT).unseen).all()


def test_clips_that_were_centred_on_a_joint_are_told(tmp_path):
    with ClipWriter(tmp_path / "store", LAYOUT, {"dataset": "x", "frame_rate": 30.0}) as writer:
        for i in range(4):
            clip = standing(seed=i)
            labels = {"clip": f"c{i}", "action": i % 2, "subject": i // 2, "performance": f"c{i}"}
            writer.add(clip - clip[:, :, LAYOUT.centre : LAYOUT.centre + 1], labels)
    told = dict(check(ClipStore.open(tmp_path / "store")).lines())["joints not seen"]
    centre = LAYOUT.joints[LAYOUT.centre]
    assert told.startswith(f"4.0% of all; most often {centre}, 100.0%. At the origin, so not seen: {centre}; ")


def test_bones_that_grow_are_unstable():
    clip = standing()
    clip *= np.linspace(1, 2, 20).reshape(1, -1, 1, 1)
    lengths = np.linspace(1, 2, 20) + 0  # every bone grows like this
    assert clip_quality(clip, LAYOUT).unstable == pytest.approx(lengths.std() / lengths.mean(), rel=1e-3)


def test_sides_that_change_places_are_found_once():
    clip = standing()
    order = list(LAYOUT.mirror_permutation)
    clip[:, 12:] = clip[:, 12:][:, :, order]
    assert clip_quality(clip, LAYOUT).swaps == 1


def test_a_second_body_is_looked_at_too():
    clip = np.concatenate([standing(), standing(seed=1)], axis=3)
    clip[0, 4, 3, 1] += 1.5
    assert clip_quality(clip, LAYOUT).jumps == 2


@pytest.fixture
def store(tmp_path):
    with ClipWriter(tmp_path / "store", LAYOUT, {"dataset": "x", "frame_rate": 30.0}) as writer:
        for i in range(8):
            clip = standing(seed=0 if i in (2, 5) else i)
            labels = {"clip": f"c{i}", "action": i % 2, "subject": i // 3, "performance": f"c{i}", "setup": i // 4}
            writer.add(clip, labels)
    return ClipStore.open(tmp_path / "store")


def test_copies_uneven_labels_and_rooms_are_found(store):
    found = check(store)
    assert found.duplicates == [("c0", "c2", "c5")]
    assert found.counts["subject"] == {0: 3, 1: 3, 2: 2}
    assert found.alone == (2, 3)  # person 1 was seen in both set-ups
    assert found.room_guess == pytest.approx((3 + 2) / 8)
    told = dict(found.lines())
    assert told["copies"] == "c0 = c2 = c5"
    assert told["joints not seen"] == "none"
    assert told["clips per subject"].startswith("2 to 3; the largest is 37.5% of all")
    assert told["set-ups"].startswith("2 of 3 people")


def test_copies_on_both_sides_of_a_split_are_found(store):
    """c0 and c2 show person 0 and c5 shows person 1, who is tested."""
    splits = {"action": Split(by="subject", train=(0,), unseen=True), "gender": Split(by="subject", train=(0,), unseen=True)}
    found = check(store, Protocol("test/1", splits))
    assert found.across == {"action": (("c0", "c2", "c5"), 1)}
    assert dict(found.lines())["copies on both sides"] == "of the split of action: 1 groups (c0 = c2 = c5, ...)"
    apart = Protocol("test/1", {"action": Split(by="subject", train=(0, 1), unseen=True)})
    assert check(store, apart).across == {}


def test_the_command_prints_and_draws(tmp_path):
    small = "synthetic:people=4,motions=2,replications=2,cameras=1"
    done = CliRunner().invoke(main, ["data", "check", small, "--results", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "copies               none" in done.output
    assert list(tmp_path.glob("check-synthetic*.png"))
