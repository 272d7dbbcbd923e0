"""Pairs for linkage: what may be a pair, and that nothing but the person tells mated from non-mated ones."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest

from bench.pairs import REGIMES, make_pairs


def table(people=6, actions=4, replications=2, cameras=3, setups=3):
    rows = []
    for p in range(people):
        for r in range(replications):
            for a in range(actions):
                setup = (p + (r * a) % 2) % setups  # a person is mostly, not always, in one room
                for c in range(cameras):
                    rows.append((f"S{setup}C{c}P{p}R{r}A{a}", a, p, f"P{p}R{r}A{a}", setup))
    return pd.DataFrame(rows, columns=["clip", "action", "subject", "performance", "setup"])


@pytest.fixture(scope="module")
def drawn():
    labels = table()
    pairs = make_pairs(labels, np.arange(len(labels)), per_person=30)
    first, second = (labels.iloc[side].reset_index(drop=True) for side in pairs.clips.T)
    return pairs, first, second


def test_mated_pairs_show_one_person_and_never_one_performance(drawn):
    pairs, first, second = drawn
    assert ((first.subject == second.subject) == pairs.mated).all()
    assert (first.performance != second.performance).all()
    assert len(set(map(tuple, np.column_stack([pairs.clips, pairs.regime])))) == len(pairs)


def test_regimes_are_what_they_say(drawn):
    pairs, first, second = drawn
    regime = np.array(REGIMES)[pairs.regime]
    assert set(regime) == set(REGIMES)
    same_action, same_setup = (first.action == second.action).to_numpy(), (first.setup == second.setup).to_numpy()
    assert not same_action[regime == "cross-action"].any()
    assert same_action[regime == "same-action"].all()
    assert not same_setup[regime == "cross-setup"].any()


def test_neither_set_up_nor_numbers_tell_mated_pairs_from_others(drawn):
    pairs, first, second = drawn
    kinds = Counter(zip(pairs.regime, first.setup == second.setup, first.subject, pairs.mated, strict=True))
    assert kinds
    assert all(kinds[r, s, p, True] == kinds[r, s, p, False] <= 30 for r, s, p, _ in kinds)


def test_the_same_clips_give_the_same_pairs_in_whatever_store_they_lie():
    labels = table()
    chosen = np.arange(20, 80)
    pairs = make_pairs(labels, chosen)
    again = make_pairs(labels.iloc[20:].reset_index(drop=True), chosen - 20)
    assert np.array_equal(pairs.clips, again.clips + 20)
    assert np.isin(pairs.clips, chosen).all()


def test_without_set_ups_there_is_no_cross_setup_regime_and_one_person_makes_no_pairs():
    labels = table().drop(columns="setup")
    pairs = make_pairs(labels, np.arange(len(labels)))
    assert set(np.array(REGIMES)[pairs.regime]) == {"cross-action", "same-action"}
    alone = labels[labels.subject == 0]
    assert len(make_pairs(alone, np.arange(len(alone)))) == 0
