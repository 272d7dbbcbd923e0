"""Identification, information, risk and comparison against closed forms, scikit-learn, and cases made by hand."""

import math

import numpy as np
import pytest
from scipy.stats import beta, multivariate_normal
from scipy.stats import entropy as scipy_entropy
from scipy.stats import t as student
from sklearn.metrics import f1_score, log_loss

from bench.measure import of_ten_clips
from bench.metrics import information, risk
from bench.metrics.comparison import difference, holm, rank_groups, rank_ranges
from bench.metrics.identification import (
    cumulative_match,
    macro_f1,
    reciprocal_ranks,
    top_k,
    true_ranks,
    vote,
)
from bench.metrics.permutation import leak_p_value, link_p_value
from bench.metrics.uncertainty import MANY, People, Sample, estimate, estimate_all_or_nothing
from bench.metrics.verification import clustered_auc, roc_auc


def random_predictions(n=300, classes=6, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=n)
    logits = rng.normal(size=(n, classes)) + 1.5 * np.eye(classes)[labels]
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), labels


# Identification


def test_ranks_by_hand():
    scores = np.array([[0.2, 0.5, 0.3], [0.2, 0.5, 0.3], [0.4, 0.4, 0.2]])
    assert true_ranks(scores, np.array([1, 0, 1])).tolist() == [1, 3, 2]
    assert reciprocal_ranks(scores, np.array([1, 0, 1])).tolist() == [1, 1 / 3, 1 / 2]
    np.testing.assert_allclose(cumulative_match(scores, np.array([1, 0, 1])), [1 / 3, 2 / 3, 1])


def test_cumulative_match_is_top_k_for_every_k():
    scores, labels = random_predictions()
    np.testing.assert_allclose(cumulative_match(scores, labels), [top_k(scores, labels, k).mean() for k in range(1, 7)])
    assert reciprocal_ranks(np.random.default_rng(0).random((200_000, 5)), np.zeros(200_000, int)).mean() == pytest.approx(
        (1 + 1 / 2 + 1 / 3 + 1 / 4 + 1 / 5) / 5, abs=0.003
    )


def test_voting_puts_log_probabilities_together():
    """Each clip of two says a little; together they say it clearly."""
    scores, owners = vote(np.array([[0.6, 0.4], [0.3, 0.7], [0.9, 0.1]]), np.array([5, 5, 9]), 2, np.random.default_rng(0))
    np.testing.assert_allclose(np.exp(scores), [[0.18, 0.28]])
    assert owners.tolist() == [5]
    one, each = vote(np.array([[0.6, 0.4], [0.0, 1.0]]), np.array([1, 2]), 1, np.random.default_rng(0))
    np.testing.assert_allclose(np.exp(one), [[0.6, 0.4], [0, 1]], atol=1e-30)
    assert each.tolist() == [1, 2]
    assert len(vote(np.ones((3, 2)), np.array([1, 1, 1]), 4, np.random.default_rng(0))[0]) == 0
    with pytest.raises(ValueError, match="at least one clip"):
        vote(np.ones((3, 2)), np.array([1, 1, 1]), 0, np.random.default_rng(0))


def test_more_clips_of_a_person_say_more():
    probabilities, labels = random_predictions(n=1200)
    shares = []
    for size in (1, 2, 5, 10):
        scores, owners = vote(probabilities, labels, size, np.random.default_rng(1))
        shares.append((scores.argmax(1) == owners).mean())
    assert shares == sorted(shares)
    assert shares[0] < 0.7
    assert shares[-1] > 0.95


def of_ten(counts, probabilities):
    """What ten clips give an attacker that says the same of each clip of a person, of whom there are so many."""
    labels = np.repeat(np.arange(len(counts)), counts)
    return of_ten_clips([np.asarray(probabilities)[labels]], labels)


@pytest.mark.parametrize("counts", [(40, 9, 9, 9), (60, 30, 20, 20, 20), (20, 20, 20, 20)])
def test_who_always_says_one_name_reads_nothing_of_ten_clips_either(counts):
    first = np.tile(np.eye(len(counts))[:1] * 0.5 + 0.5 / len(counts), (len(counts), 1))
    found = of_ten(counts, first)
    if sum(count >= 10 for count in counts) < 2:
        assert math.isnan(found.value)
    else:
        assert found.value == pytest.approx(0.0, abs=1e-12)
        assert found.low <= 0.0 <= found.high


def test_of_ten_clips_people_count_alike():
    """The last two of four are found, one of them with six sets, one with one: half of all, (1/2 - 1/4) / (3/4)."""
    found = of_ten((30, 20, 60, 10), np.eye(4)[[1, 0, 2, 3]] * 0.9 + 0.025)
    assert found.value == pytest.approx(1 / 3)


def test_where_ten_clips_find_everybody_people_count_not_sets():
    """Eight of eight: the 2.5 % quantile of Beta(8, 1/2), of two sets each as of ten."""
    low = (beta.ppf(0.025, 8, 0.5) - 1 / 8) / (7 / 8)
    for clips in (20, 100):
        found = of_ten((clips,) * 8, np.eye(8) * 0.9 + 0.0125)
        assert (found.value, found.high) == (pytest.approx(1.0), pytest.approx(1.0))
        assert found.low == pytest.approx(low, abs=0.03)


@pytest.mark.parametrize("level", [0.95, 0.5])
@pytest.mark.parametrize(("found", "people"), [(0, 4), (1, 8), (5, 8), (17, 18), (18, 18)])
def test_people_who_are_found_or_not_are_counted(found, people, level):
    """Beta(k, n - k + 1/2) for the lower end, Beta(k + 1/2, n - k) for the upper one."""
    drawn, tail = estimate_all_or_nothing(np.arange(people) < found), (1 - level) / 2
    low = beta.ppf(tail, found, people - found + 0.5) if found else 0.0
    high = beta.ppf(1 - tail, found + 0.5, people - found) if found < people else 1.0
    assert drawn.value == found / people
    at = drawn.at(level)
    np.testing.assert_allclose((at.low, at.high), (low, high), atol=0.03 * (high - low))
    assert drawn.low <= drawn.value <= drawn.high


@pytest.mark.parametrize("counts", [None, np.array([2, 2, 4, 4, 8])])
def test_people_who_are_found_at_times_vary_as_a_dirichlet_process_says(counts):
    """Weights drawn in another way: a Dirichlet distribution of five people and half a one, tilted by how much each counts."""
    shares, rng = np.array([0.1, 0.4, 0.5, 0.5, 0.9]), np.random.default_rng(1)
    told = estimate_all_or_nothing(shares, counts)
    weights = np.ones(5) if counts is None else counts / counts.mean()
    tilted = rng.dirichlet([1, 1, 1, 1, 1, 0.5], size=100_000) * np.r_[weights, 1]
    tilted /= tilted.sum(axis=1, keepdims=True)
    assert told.value == pytest.approx(weights @ shares / 5)
    assert told.low == pytest.approx(np.quantile(tilted @ np.r_[shares, 0], 0.025), abs=0.01)
    assert told.high == pytest.approx(np.quantile(tilted @ np.r_[shares, 1], 0.975), abs=0.01)
    assert math.isnan(estimate_all_or_nothing(shares[:3]).low)


@pytest.mark.parametrize("levels", [7, 5000])
def test_resampled_auc_is_the_auc_of_the_clips_drawn(levels):
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(30), 40)
    positive = people % 2 == 0
    scores = np.floor((rng.random(1200) + 0.3 * positive) * levels) / levels
    resampled = People.resample(people, rng, strata=positive.astype(int), draws=20)
    found = clustered_auc(resampled, scores, positive)
    assert found[0] == pytest.approx(roc_auc(scores[positive], scores[~positive]))
    for draw, times in zip(found[1:], resampled.weights[1:], strict=True):
        weight = times[people]
        expected = roc_auc(scores[positive], scores[~positive], (weight[positive], weight[~positive]))
        assert draw == pytest.approx(expected, abs=1e-9 if levels == 7 else 2e-3)


# Information


def test_entropies_agree_with_others():
    probabilities, labels = random_predictions()
    assert information.entropy(labels) == pytest.approx(scipy_entropy(np.bincount(labels), base=2))
    assert information.cross_entropy(probabilities, labels) == pytest.approx(
        log_loss(labels, probabilities) / np.log(2), rel=1e-6
    )
    assert information.entropy(np.zeros(5, int)) == 0


def test_temperature_is_found_again():
    """Logits that were sharpened by three are flattened by three: at the truth's own temperature they surprise least."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 4)) * 2
    true = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (true.cumsum(1) > rng.random((len(true), 1))).argmax(1)
    sharp = true**3 / (true**3).sum(1, keepdims=True)
    assert information.fit_temperature(sharp, labels) == pytest.approx(3, rel=0.05)
    assert information.fit_temperature(true, labels) == pytest.approx(1, rel=0.05)


def test_mutual_information_of_two_normals():
    """Of a sign seen through noise; the integral is known to four digits by quadrature. No attacker's bound is above it."""
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=200_000)
    seen = (2 * labels - 1) + rng.normal(size=len(labels))
    grid = np.linspace(-12, 12, 20_001)
    densities = np.stack([multivariate_normal(mean).pdf(grid) for mean in (-1, 1)])
    mixed = densities.mean(0)
    exact = np.trapezoid(np.mean([d * np.log2(d / mixed) for d in densities], axis=0), grid)
    ideal = 1 / (1 + np.exp(-2 * seen))
    assert information.mutual_information(np.stack([1 - ideal, ideal], 1), labels) == pytest.approx(exact, abs=0.005)
    timid = 1 / (1 + np.exp(-0.3 * seen))
    blunt = np.stack([1 - timid, timid], 1)
    assert information.mutual_information(blunt, labels) < exact - 0.05
    better = information.mutual_information(blunt, labels, information.fit_temperature(blunt, labels))
    assert better == pytest.approx(exact, abs=0.005)
    assert information.mutual_information(np.stack([ideal, 1 - ideal], 1), labels) == 0  # reliably wrong and sure of it


def test_information_does_not_depend_on_how_sure_an_attacker_is_of_itself():
    rng = np.random.default_rng(0)
    labels, people = rng.integers(2, size=50_000), rng.integers(10, size=50_000)
    seen = (2 * labels - 1) + rng.normal(size=len(labels))

    def of(slope):
        sure = 1 / (1 + np.exp(-slope * seen))
        return information.calibrated_information(np.stack([1 - sure, sure], 1), labels, people).mean()

    right = information.mutual_information(np.stack([1 / (1 + np.exp(2 * seen)), 1 / (1 + np.exp(-2 * seen))], 1), labels)
    assert of(2.0) == pytest.approx(right, abs=0.002)
    assert of(0.3) == pytest.approx(right, abs=0.002)
    assert of(6.0) == pytest.approx(right, abs=0.002)
    apart = people % 2  # everybody with an even code is of one class
    seen = (2 * apart - 1) + rng.normal(size=len(apart))
    sure = 1 / (1 + np.exp(-0.3 * seen))
    told = information.calibrated_information(np.stack([1 - sure, sure], 1), apart, people).mean()
    assert told == pytest.approx(right, abs=0.01)
    blind = rng.dirichlet([1, 1], size=len(labels))
    assert information.calibrated_information(blind, labels, people).mean() < 0.001
    alone = information.calibrated_information(blind[:3], labels[:3], np.zeros(3, int))
    assert max(0.0, alone.mean()) == information.mutual_information(blind[:3], labels[:3])


def test_min_entropy_leakage_by_hand():
    assert information.min_entropy_leakage(0.5, 0.125) == 2
    assert information.min_entropy_leakage(0.1, 0.125) == 0
    np.testing.assert_allclose(information.min_entropy_leakage(np.array([0.25, 1.0]), 0.25), [0, 2])


# Risk


def the_people(codes):
    return People.resample(codes, np.random.default_rng(0), draws=30)


def test_a_mean_near_chance_can_hide_one_who_is_always_found():
    people = np.repeat(np.arange(20), 10)
    found = risk.measure_risk((people == 3).astype(float), the_people(people), 1 / 20)
    assert (found.worst[0], found.exposed[0], found.singled_out[0]) == (1.0, 0.05, 0.05)
    assert found.gini[0] == pytest.approx(0.95)
    assert found.p95[0] == pytest.approx(np.quantile([0.0] * 19 + [1.0], 0.95))


def test_evenly_spread_risk():
    people = np.repeat(np.arange(5), 4)
    found = risk.measure_risk(np.tile([1, 0, 0, 0], 5), the_people(people), 1 / 5)
    np.testing.assert_allclose([found.worst, found.p95], 0.25)
    np.testing.assert_allclose([found.exposed, found.gini], 0, atol=1e-12)
    assert np.isnan(found.singled_out).all()  # of five people, nobody can be named ten times as often as by chance
    nobody = risk.measure_risk(np.zeros(20), the_people(people), 1 / 5)
    assert not nobody.gini.any()


def test_risk_of_resamples_is_that_of_the_people_who_were_drawn():
    rng = np.random.default_rng(1)
    codes = np.repeat(np.arange(30), rng.integers(2, 9, 30))
    hits, people = rng.random(len(codes)), the_people(codes)
    found = risk.measure_risk(hits, people, 1 / 30)
    recall = np.array([hits[codes == person].mean() for person in range(30)])
    for b in range(31):
        drawn = np.repeat(recall, people.weights[b].astype(int))
        assert found.worst[b] == drawn.max()
        assert found.p95[b] == pytest.approx(np.quantile(drawn, 0.95))
        assert found.exposed[b] == pytest.approx((drawn > 0.5).mean())
        assert found.singled_out[b] == pytest.approx((drawn > 10 / 30).mean())
        assert found.gini[b] == pytest.approx(np.abs(drawn[:, None] - drawn).mean() / (2 * drawn.mean()))


def test_macro_f1_of_resamples_is_scikit_learns_of_the_clips_that_were_drawn():
    rng = np.random.default_rng(2)
    codes, labels = np.repeat(np.arange(12), 10), rng.integers(5, size=120)
    named, people = np.where(rng.random(120) < 0.6, labels, rng.integers(6, size=120)), the_people(codes)
    found = macro_f1(people, named, labels)
    for b in range(31):
        times = people.weights[b].astype(int)[codes]
        truth, said = np.repeat(labels, times), np.repeat(named, times)
        assert found[b] == pytest.approx(f1_score(truth, said, labels=np.unique(truth), average="macro"))


# Intervals


def test_tails_of_few_people_are_narrower_cuts():
    """Normal probability of -sqrt(n / (n - 1)) times Student's quantile: 2.3646 for 8 people, 2.0930 for 20."""
    assert Sample((8,)).tail(0.95) == pytest.approx(0.0057, abs=1e-4)
    assert Sample((20,)).tail(0.95) == pytest.approx(0.0159, abs=1e-4)
    assert MANY.tail(0.95) == pytest.approx(0.025)
    assert Sample((3,)).tail(0.95) == 0
    for sample in (Sample((8,)), Sample((6, 6)), MANY):
        assert sample.p_value(sample.tail(0.95)) == pytest.approx(0.05)
    assert Sample((3,)).p_value(0.001) == 1


@pytest.mark.parametrize("people", [8, 20])
def test_intervals_hold_the_truth_as_often_as_they_say(people):
    """Clips of people who differ: 400 data sets. The interval that takes clips for independent holds it far less often."""
    truth, level, clips = 2 / 5, 0, 20
    naive = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        person = np.repeat(np.arange(people), clips)
        hits = (rng.random(len(person)) < rng.beta(2, 3, people)[person]).astype(float)
        resampled = People.resample(person, rng, draws=1000)
        of = resampled.estimate(resampled.balanced_mean(hits, person))
        level += of.low <= truth <= of.high
        naive += abs(hits.mean() - truth) <= 1.96 * np.sqrt(hits.mean() * (1 - hits.mean()) / len(hits))
    assert 0.92 <= level / 400 <= 0.98
    assert naive / 400 < 0.75


# Comparison


def estimates(shift, people=30, clips=40, seed=0, difficulty=0.3):
    """Two methods on the same clips of people who differ much; the second is better by `shift` for everybody."""
    rng = np.random.default_rng(seed)
    person = np.repeat(np.arange(people), clips)
    level = 0.5 + difficulty * (rng.random(people) - 0.5)
    noise = rng.random(len(person))
    resampled = People.resample(person, np.random.default_rng(9))
    found = [resampled.mean((noise < level[person] + by).astype(float)) for by in (0.0, shift)]
    return [resampled.estimate(draws) for draws in found]


def test_a_paired_difference_is_surer_than_its_parts():
    one, other = estimates(0.05)
    found = difference(other, one)
    assert found.estimate.value == pytest.approx(other.value - one.value)
    assert found.estimate.low > 0
    assert found.p_value < 0.01
    assert one.high > other.low  # their own intervals overlap
    assert difference(one, one).p_value == 1
    with pytest.raises(ValueError, match="over the same resamples"):
        difference(one, estimate(0.5, np.zeros(3), MANY))


def test_false_claims_are_as_rare_as_stated():
    """Two methods that do not differ, on new people each time: about one in twenty differences is called sure."""
    claims = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        people = np.repeat(np.arange(40), 10)
        resampled = People.resample(people, rng, draws=400)
        one, other = (resampled.mean(rng.normal(size=400) + rng.normal(size=40)[people]) for _ in range(2))
        claims += difference(resampled.estimate(one), resampled.estimate(other)).p_value < 0.05
    assert 2 <= claims <= 21  # binomial, 200 draws at 0.05: beyond these once in a thousand


def test_a_difference_that_no_resample_denies_is_as_sure_as_its_spread():
    """Eight people, all of whom lose nearly everything: Student's t at 7 degrees of freedom, not the number of resamples."""
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(8), 50)
    resampled = People.resample(people, rng)
    level = rng.uniform(0.85, 0.95, 8)
    one, other = (resampled.estimate(resampled.mean((rng.random(400) < by).astype(float))) for by in (level[people], 0.1))
    found = difference(one, other)
    spread = found.estimate.draws.std() * np.sqrt(8 / 7)
    assert found.p_value == pytest.approx(2 * student.sf(found.estimate.value / spread, 7), rel=0.05)
    assert found.p_value < 1e-4


def test_holm_by_hand():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.5, 0.9]), [1, 1])


def test_rank_groups():
    one, other = estimates(0.2)
    assert rank_groups([one, other]) == [(2, 2), (1, 1)]
    assert rank_groups([one, one, other]) == [(2, 3), (2, 3), (1, 1)]
    assert rank_groups([one]) == [(1, 1)]
    assert rank_groups([]) == []


def test_ranges_that_lie_apart_are_sure():
    """Touching ranges, and unknown ones, say nothing."""
    low, high = np.array([(0.1, 0.4), (0.4, 0.6), (0.65, 0.8), (np.nan, np.nan)]).T
    assert rank_ranges(low, high) == [(2, 4), (2, 4), (1, 2), (1, 4)]
    assert rank_ranges(low[:0], high[:0]) == []


def test_p_value_of_a_leak_is_that_of_counting_all_permutations():
    """Four performances of two people, named right: of the six ways to deal the names out, one is as good, and counts half."""
    labels = np.array([0, 0, 1, 1])
    p = leak_p_value(labels[None], labels, np.arange(4), np.random.default_rng(0), permutations=20_000)
    assert p == pytest.approx(1 / 12, abs=0.01)
    twice = np.repeat(labels, 3)  # three cameras a performance are no more evidence
    p = leak_p_value(twice[None], twice, np.repeat(np.arange(4), 3), np.random.default_rng(0), permutations=20_000)
    assert p == pytest.approx(1 / 12, abs=0.01)
    folds = np.array([0, 0, 1, 1])  # within folds of one each there are four ways
    mixed = np.array([0, 1, 0, 1])
    p = leak_p_value(mixed[None], mixed, np.arange(4), np.random.default_rng(0), folds=folds, permutations=20_000)
    assert p == pytest.approx(1 / 8, abs=0.01)


def test_p_value_of_a_leak_where_there_is_none():
    """It is uniform for random answers, and one half for always naming one class."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(5), 8)
    always = np.zeros((1, 40), dtype=int)
    assert leak_p_value(always, labels, np.arange(40), rng, permutations=99) == 0.5
    found = np.array(
        [leak_p_value(rng.integers(5, size=(1, 40)), labels, np.arange(40), rng, permutations=99) for _ in range(400)]
    )
    assert (found <= 0.05).mean() == pytest.approx(0.05, abs=3 * np.sqrt(0.05 * 0.95 / 400))
    assert found.mean() == pytest.approx(0.5, abs=0.05)


def test_a_gap_between_groups_is_called_unlikely_as_often_as_its_level_says():
    """People who do not differ by gender or height; then one group that leaks far more."""
    from bench.measure import _widest_gap

    subjects = np.repeat(np.arange(20), 30)
    groups = {"gender": ["F", "M"] * 10, "height": ["a", "b", "c", "", "b"] * 4, "one": ["x"] * 20}
    found = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        hits = rng.random(600) < rng.beta(2, 2, 20)[subjects]
        found.append(_widest_gap(hits, subjects, groups)["group_gap_p"])
    assert np.mean(np.array(found) <= 0.05) < 0.1
    assert np.mean(found) == pytest.approx(0.5, abs=0.07)
    leaks = _widest_gap(np.where(subjects % 2 == 0, 0.9, 0.3), subjects, groups)
    assert leaks["group_gap_p"] < 0.03
    assert (leaks["group_most"], leaks["group_gap"]) == ("gender=F", pytest.approx(0.6))
    assert _widest_gap(np.ones(600), subjects, {"one": ["x"] * 20}) == {}


@pytest.mark.parametrize("sizes", [(3, 17), (4, 4), (3, 5)])
def test_intervals_of_unequal_classes_hold_the_truth(sizes):
    """The mean of two classes of people; the smaller one decides how far it varies."""
    subjects = np.repeat(np.arange(sum(sizes)), 8)
    labels = (subjects >= sizes[0]).astype(int)
    held = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        hits = (rng.random(len(subjects)) < rng.beta(2, 1.2, sum(sizes))[subjects]).astype(float)
        people = People.resample(subjects, rng, strata=labels, draws=600)
        assert people.sample.sizes == sizes
        found = people.estimate(people.balanced_mean(hits, labels))
        held += found.low <= 2 / 3.2 <= found.high
    assert held / 300 > 0.88


@pytest.mark.parametrize("sizes", [(3,), (2, 10), (1, 11), (2, 2, 2)])
def test_of_too_few_people_no_interval_is_stated(sizes):
    sample = Sample(sizes)
    found = estimate(0.8, np.random.default_rng(0).normal(0.8, 0.01, 500), sample)
    assert found.value == 0.8
    assert np.isnan([found.low, found.high]).all()
    assert sample.p_of(50) == 1


def linked(count, shift, seed, per=12):
    """Pairs as they are drawn for linkage: as many of one person as of two, mated ones more alike by `shift`."""
    rng = np.random.default_rng(seed)
    first = np.tile(np.repeat(np.arange(count), per), 2)
    other = (first + rng.integers(1, count, size=len(first))) % count
    second = np.where(np.arange(len(first)) < len(first) // 2, first, other)
    own = rng.normal(size=(count, count))  # some people look alike, whoever they are
    return rng.normal(size=len(first)) + own[first, second] + shift * (first == second), first, second


def test_p_value_of_a_link_is_that_of_counting_all_renamings():
    """Three people whose own pairs alone are alike: of six renamings one is as good, and counts half."""
    first, second = np.divmod(np.arange(9), 3)
    scores = (first == second).astype(float)
    assert link_p_value(scores, first, second, np.random.default_rng(0), permutations=20_000) == pytest.approx(1 / 12, abs=0.01)
    same = link_p_value(np.ones(9), first, second, np.random.default_rng(0))
    assert same == 0.5


def test_p_value_of_a_link_keeps_its_level_and_finds_what_is_there():
    found = [link_p_value(*linked(8, 0.0, seed), np.random.default_rng(seed), permutations=199) for seed in range(200)]
    assert np.mean(np.array(found) <= 0.05) < 0.1
    assert 0.3 < np.mean(found) < 0.7
    assert link_p_value(*linked(8, 3.0, 0), np.random.default_rng(0)) < 0.01
