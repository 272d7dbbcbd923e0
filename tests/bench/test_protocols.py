import numpy as np
import pandas as pd
import pytest

from bench.protocols import Protocol, ProtocolError, Split, anonymizer_part, fold_of, hold_out, instantiate

PROTOCOL = Protocol(
    "test/1",
    {
        "action": Split("subject", (1, 2), unseen=True),
        "subject": Split("replication", (1,), unseen=False),
        "gender": Split("subject", (1, 2), unseen=True),
    },
    validation=0.25,
)


def table(cameras=1):
    rows = [
        {
            "clip": f"S{s}A{a}R{r}C{c}",
            "action": a,
            "subject": s,
            "performance": f"S{s}A{a}R{r}",
            "replication": r,
            "camera": c,
            "gender": "FM"[s % 2],
        }
        for s in (1, 2, 3, 4)
        for a in (10, 20, 30, 40)
        for r in (1, 2)
        for c in range(cameras)
    ]
    return pd.DataFrame(rows).convert_dtypes()


def test_people_are_unseen_for_actions_and_seen_for_reidentification():
    labels = table()
    subject = labels["subject"].to_numpy()
    action = instantiate(PROTOCOL, "action", labels, "x")
    assert set(subject[action.test]) == {3, 4}
    assert set(subject[np.r_[action.train, action.validation]]) == {1, 2}
    reid = instantiate(PROTOCOL, "subject", labels, "x")
    assert set(labels["replication"].to_numpy()[reid.test]) == {2}
    assert reid.classes == (1, 2, 3, 4)
    assert reid.chance == reid.prior == 0.25
    assert reid.prior_top5 == 1.0


def test_sides_are_disjoint_by_performance_also_for_validation():
    labels = table(cameras=3)
    performance = labels["performance"].to_numpy()
    for target in PROTOCOL.splits:
        part = instantiate(PROTOCOL, target, labels, "x")
        sides = [set(performance[i]) for i in (part.train, part.validation, part.test)]
        assert all(sides)
        assert len(sides[0] | sides[1] | sides[2]) == sum(map(len, sides))
        assert set(part.labels[part.validation]) == set(part.labels[part.train])


def test_priors_follow_the_test_part():
    labels = table()
    labels = labels.drop(index=labels.index[(labels["subject"] == 1) & (labels["replication"] == 2)][:3])
    part = instantiate(PROTOCOL, "subject", labels, "x")
    assert part.prior == pytest.approx(4 / 13)
    assert part.chance == 0.25


def test_one_performance_on_both_sides_is_refused():
    protocol = Protocol("xview/1", {"subject": Split("camera", (0,), unseen=False)})
    with pytest.raises(ProtocolError, match=r"performance S1A10R1 \(32 in all\) is in training and in test of 'subject'"):
        instantiate(protocol, "subject", table(cameras=2), "x")


def test_what_the_data_cannot_support_is_said():
    labels = table().drop(columns="gender")
    with pytest.raises(ProtocolError, match="cannot test 'gender': x as prepared has no gender labels"):
        instantiate(PROTOCOL, "gender", labels, "x")
    with pytest.raises(ProtocolError, match="cannot test 'age'; it can test action, subject, gender"):
        instantiate(PROTOCOL, "age", labels, "x")
    with pytest.raises(ProtocolError, match="no test clips for 'subject'"):
        instantiate(PROTOCOL, "subject", table().query("replication == 1"), "x")
    with pytest.raises(ProtocolError, match="subject 1 is tested but never in training; leave its clips out"):
        instantiate(PROTOCOL, "subject", table().query("subject != 1 or replication == 2"), "x")
    with pytest.raises(ProtocolError, match="nothing can be told apart"):
        instantiate(PROTOCOL, "gender", table().assign(gender="F"), "x")


def test_clips_without_a_label_take_no_part():
    labels = table()
    labels.loc[labels["subject"] == 4, "gender"] = pd.NA
    part = instantiate(PROTOCOL, "gender", labels, "x")
    used = np.r_[part.train, part.validation, part.test]
    assert set(labels["subject"].to_numpy()[used]) == {1, 2, 3}
    assert (part.labels[labels["subject"].to_numpy() == 4] == -1).all()


def test_an_anonymizer_learns_from_no_test_clip_of_any_target():
    labels = table()
    parts = {target: instantiate(PROTOCOL, target, labels, "x") for target in PROTOCOL.splits}
    allowed = set(anonymizer_part(parts))
    assert allowed
    assert not any(allowed & set(part.test) for part in parts.values())
    row = labels.iloc[sorted(allowed)]
    assert set(row["subject"]) == {1, 2}
    assert set(row["replication"]) == {1}


def test_the_part_does_not_depend_on_the_order_of_calls_and_its_digest_follows_the_labels():
    labels = table()
    one, two = (instantiate(PROTOCOL, "subject", labels, "x") for _ in range(2))
    assert one.digest == two.digest
    other = labels.assign(subject=labels["subject"].replace({3: 5}))
    assert instantiate(PROTOCOL, "subject", other, "x").digest != one.digest


def test_a_restricted_part_has_nothing_of_the_clips_that_are_left_out():
    labels = table(cameras=2)
    part = instantiate(PROTOCOL, "subject", labels, "x")
    allowed = anonymizer_part({"action": instantiate(PROTOCOL, "action", labels, "x"), "subject": part})
    kept = part.restricted(allowed)
    assert len(kept.labels) == len(kept.subjects) == len(kept.performances) == len(allowed)
    assert not kept.test.size
    for side in ("train", "validation"):
        assert set(allowed[getattr(kept, side)]) == set(getattr(part, side)) & set(allowed)
    assert np.array_equal(kept.labels, part.labels[allowed])
    assert set(labels["subject"].to_numpy()[allowed]) == {1, 2}


def test_classes_that_no_training_clip_shows_are_left_out():
    labels = table()
    part = instantiate(PROTOCOL, "subject", labels, "x")
    allowed = np.flatnonzero(labels["subject"].isin([2, 4]))
    kept = part.restricted(allowed).of_trained_classes()
    assert kept.classes == (2, 4)
    assert set(kept.labels) == {0, 1}
    assert np.array_equal(np.array(kept.classes)[kept.labels], labels["subject"].to_numpy()[allowed])
    few = part.restricted(
        np.flatnonzero(labels["subject"].isin([2, 4]) & ((labels["subject"] == 2) | (labels["replication"] == 2)))
    )
    assert few.of_trained_classes().classes == (2,)
    assert set(few.of_trained_classes().labels) == {0, -1}


def test_who_must_test_with_training_clips_tests_on_other_performances():
    part = instantiate(PROTOCOL, "subject", table(cameras=3), "x")
    inner = hold_out(part)
    assert np.array_equal(inner.test, part.validation)
    assert np.array_equal(np.sort(np.r_[inner.train, inner.validation]), part.train)
    sides = [set(part.performances[i]) for i in (inner.train, inner.validation, inner.test)]
    assert all(sides)
    assert len(sides[0] | sides[1] | sides[2]) == sum(map(len, sides))


def split_by(split, labels, target="subject"):
    return instantiate(Protocol("x/1", {target: split}), target, labels, "x")


def test_parity_takes_half_of_every_persons_clips_of_every_action_and_turns_with_them():
    labels = table()
    labels["action"] = labels["action"] // 10
    part = split_by(Split("parity", (1,), unseen=False), labels)
    train = np.r_[part.train, part.validation]
    for i in train:
        row = labels.iloc[i]
        assert row["action"] % 2 == (row["subject"] - row["replication"]) % 2
    for _, group in labels.iloc[train].groupby("subject"):
        assert sorted(group["action"]) == [1, 2, 3, 4]  # each action once, by turns in the first and the second replication
        assert set(group["replication"]) == {1, 2}


def test_sessions_are_later_set_ups_of_those_who_were_seen_in_several():
    labels = table()
    labels["setup"] = [
        {1: 1, 2: 1 + a // 10 % 2, 3: a // 10, 4: 5}[s] for s, a in zip(labels["subject"], labels["action"], strict=True)
    ]
    part = split_by(Split("session", (1,), unseen=False), labels)
    assert part.classes == (2, 3)  # the others were seen in one set-up only
    tested = labels.iloc[part.test]
    assert set(tested.loc[tested["subject"] == 2, "setup"]) == {2}
    assert set(tested.loc[tested["subject"] == 3, "setup"]) == {3, 4}


def test_cameras_share_performances_only_where_that_is_declared():
    labels = table(cameras=3)
    with pytest.raises(ProtocolError, match="is in training and in test"):
        split_by(Split("camera", (1, 2), unseen=False), labels)
    part = split_by(Split("camera", (1, 2), unseen=False, shares=True), labels)
    assert set(labels["camera"].to_numpy()[part.test]) == {0}
    assert set(part.performances[part.test]) == set(part.performances)
    assert not set(part.performances[part.train]) & set(part.performances[part.validation])


def test_a_derived_split_names_the_labels_that_it_lacks():
    with pytest.raises(ProtocolError, match="no setup labels"):
        split_by(Split("session", (1,), unseen=False), table())


def test_folds_test_everybody_once_and_nobody_they_trained_on():
    labels = table()
    people = labels["subject"].to_numpy()
    for count in (2, 3, 4):
        tested = []
        for number in range(1, count + 1):
            fold = PROTOCOL.fold(number, count)
            assert fold.name == f"{count}-fold-{number}/1"
            assert fold_of(fold.name) == (number, count)
            part = instantiate(fold, "action", labels, "x")
            assert not set(people[part.test]) & set(people[np.r_[part.train, part.validation]])
            tested.append(part.test)
        np.testing.assert_array_equal(np.sort(np.concatenate(tested)), np.arange(len(labels)))
    assert set(people[tested[1]]) == {2}  # four folds of four people: one is left out


def test_folds_ask_nothing_about_people_who_are_on_both_sides():
    assert set(PROTOCOL.fold(1, 2).splits) == {"action", "gender"}
    with pytest.raises(ProtocolError, match="cannot test 'subject'"):
        instantiate(PROTOCOL.fold(1, 2), "subject", table(), "x")
    for number, count in ((0, 5), (6, 5), (1, 1)):
        with pytest.raises(ProtocolError, match=f"there is no fold {number} of {count}"):
            PROTOCOL.fold(number, count)
    assert fold_of("xsub/1") is None


def test_measured_height_is_split_by_people():
    labels = table()
    labels["height_class"] = labels["subject"].map({1: "short", 2: "tall", 3: "short", 4: "tall"}).astype("string")
    only_seen = Protocol("test/1", {"subject": PROTOCOL.splits["subject"]})
    with pytest.raises(ProtocolError, match="cannot test 'height_class'"):
        instantiate(only_seen, "height_class", labels, "x")
    part = instantiate(PROTOCOL, "height_class", labels, "x")
    assert part.classes == ("short", "tall")
    assert set(labels["subject"].to_numpy()[part.test]) == {3, 4}
    assert part.pairs is None


def uneven(genders):
    """People with one clip more each than the one before; each has a gender, or none."""
    rows = [
        {"clip": f"P{p}C{c}", "action": c % 2, "subject": p, "performance": f"P{p}C{c}", "replication": 1, "gender": gender}
        for p, gender in enumerate(genders, 1)
        for c in range(p + 3)
    ]
    return pd.DataFrame(rows).convert_dtypes()


def test_folds_share_out_an_attribute_among_those_who_have_one():
    labels = uneven(["F", None, "F", "M", None, "F", "M", "M", "F", "M", None])
    gender = labels.drop_duplicates("subject").set_index("subject")["gender"]
    tested = []
    for number in range(1, 5):
        part = instantiate(PROTOCOL.fold(number, 4), "gender", labels, "x")
        people = set(labels["subject"].to_numpy()[part.test])
        assert sorted(gender[list(people)]) == ["F", "M"]
        tested += people
    assert sorted(tested) == gender.dropna().index.tolist()
    with pytest.raises(ProtocolError, match="nobody of gender M is tested; take fewer folds"):
        [instantiate(PROTOCOL.fold(number, 5), "gender", labels, "x") for number in range(1, 6)]


def test_clips_of_two_people_name_nobody():
    labels = table()
    labels["actors"] = labels["action"].map(lambda action: 2 if action == 40 else 1).astype("Int64")
    split = Split("replication", (1,), unseen=False, alone=True)
    part = split_by(split, labels)
    asked = np.concatenate([part.train, part.validation, part.test])
    assert set(labels["action"].to_numpy()[asked]) == {10, 20, 30}
    assert (part.labels[labels["action"] == 40] == -1).all()
    assert len(split_by(Split("replication", (1,), unseen=False), labels).test) == len(labels) / 2
    assert "alone" in Protocol("x/1", {"subject": split}).describe()["splits"]["subject"]
    assert "alone" not in PROTOCOL.describe()["splits"]["subject"]


def test_too_few_performances_to_validate_are_refused():
    labels = table()
    labels = labels[labels["action"] == 10].reset_index(drop=True)
    with pytest.raises(ProtocolError, match=r"no subject has two performances in training.* takes three performances each"):
        instantiate(PROTOCOL, "subject", labels, "x")
