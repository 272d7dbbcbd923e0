"""What `bench table --compare` says of differences that are known."""

import numpy as np
import pytest

from bench.measured import Group
from bench.metrics.comparison import Difference
from bench.metrics.uncertainty import Estimate
from bench.report.compare import Comparison

GROUP = Group("d", "x", "p/1", "quick", "v")


def found(value, p):
    return Difference(Estimate(value, value - 0.1, value + 0.1, np.zeros(3)), p)


@pytest.mark.parametrize(
    ("leakage", "p", "utility", "said"),
    [
        (
            -0.3,
            0.01,
            found(0.0, 0.9),
            "surely leaks less to 1 and more to 0 attackers (semi-informed); no sure difference in use",
        ),
        (0.3, 0.01, found(-0.2, 0.01), "surely leaks less to 0 and more to 1 attackers (semi-informed); surely less useful"),
        (-0.3, 0.06, found(0.2, 0.01), "no attacker tells them apart for sure; surely more useful"),
    ],
)
def test_verdicts(leakage, p, utility, said):
    """The ignorant attacker has no say, however sure it is."""
    each = {("lda", "ignorant"): found(0.9, 0.001), ("lda", "semi-informed"): found(leakage, p)}
    one = Comparison(GROUP, ("a", "b"), each, (0.002, p), utility)
    assert one.verdict() == f"a against b: {said}."
