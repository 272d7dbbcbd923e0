"""What `bench table --compare` says of differences that are known."""

import numpy as np
import pytest

from bench.measured import Group
from bench.metrics.comparison import Difference, difference
from bench.metrics.uncertainty import Estimate, Sample
from bench.report.compare import Comparison

NONE = "no verdict on leakage: not both were measured with semi-informed attackers"
GROUP = Group("d", "x", "p/1", "quick", "v")


def found(value, p):
    return Difference(Estimate(value, value - 0.1, value + 0.1, np.zeros(3)), p)


@pytest.mark.parametrize(
    ("worst", "utility", "said"),
    [
        (found(-0.3, 0.01), found(0.0, 0.9), "surely leaks less to its worst attacker; no sure difference in use"),
        (found(0.3, 0.01), found(-0.2, 0.01), "surely leaks more to its worst attacker; surely less useful"),
        (found(-0.3, 0.06), found(0.2, 0.01), "no sure difference in leakage to the worst attacker; surely more useful"),
        (
            None,
            found(np.nan, 1.0),
            "no verdict on leakage: not both were measured with semi-informed attackers; their use is not known",
        ),
    ],
)
def test_verdicts(worst, utility, said):
    """The ignorant attacker has no say, however sure it is."""
    one = Comparison(GROUP, ("a", "b"), worst, {}, {("lda", "ignorant"): found(0.9, 0.001)}, utility)
    assert one.verdict() == f"a against b: {said}."


def test_flags_withhold_the_verdict():
    one = Comparison(GROUP, ("a", "b"), found(-0.3, 0.001), {"b": ("pass-through", "no-control")}, {}, found(0.0, 0.9))
    assert "no verdict on leakage, for the flags of b: pass-through, no-control; no sure difference in use" in one.verdict()


def test_differences_without_spread_and_without_numbers():
    """Of eight people who all differ by the same, as of a coin that falls on one side eight times: 2 / 2^8."""
    perfect, nothing = (Estimate(v, v, v, np.full(500, v), Sample((8,))) for v in (1.0, 0.0))
    assert difference(perfect, nothing).p_value == pytest.approx(2 / 2**8)
    assert difference(perfect, perfect).p_value == 1
    unknown = Estimate(np.nan, np.nan, np.nan, np.full(500, np.nan), Sample((8,)))
    assert difference(perfect, unknown).p_value == 1
    few = [Estimate(v, v, v, np.full(500, v), Sample((3,))) for v in (1.0, 0.0)]
    assert difference(*few).p_value == 1
