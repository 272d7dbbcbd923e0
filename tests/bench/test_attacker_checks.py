"""`bench submit check` of attackers: each thing that they must not do is named; one that does nothing wrong is the template."""

import time

import pytest

from bench.submission.manifest import seal
from tests.bench.hostile import write_attacker
from tests.bench.test_isolation import checked, namespace, results, tight, wrong  # noqa: F401 - fixtures

FIRST = "out = np.zeros((number, classes), dtype=np.float32)\nout[:, {column}] = 1\nreturn out"
DAY = 24 * 3600
BAD = {
    "clock": "import time\nlater = int(time.time() > {date})\n" + FIRST.format(column="later"),
    "determinism": (
        "out = np.random.default_rng().random((number, classes), dtype=np.float32)\nreturn out / out.sum(axis=1, keepdims=True)"
    ),
    "batch independence": FIRST.format(column="number % classes"),
}
NO_PROBABILITIES = {
    "not finite": "return np.full((number, classes), np.nan, dtype=np.float32)",
    "the smallest is -1": "return np.full((number, classes), -1, dtype=np.float32)",
    "sum to": "return np.full((number, classes), 0.9, dtype=np.float32)",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BAD)
def test_what_it_must_not_do_is_named_and_nothing_else(tmp_path, results, namespace, name):  # noqa: F811
    scores = BAD[name].replace("{date}", str(time.time() + 100 * DAY))
    assert wrong(checked(write_attacker(tmp_path / "m", scores), results)) == {name}


@pytest.mark.parametrize("told", NO_PROBABILITIES)
def test_scores_that_are_no_probabilities_are_refused(tmp_path, results, namespace, told):  # noqa: F811
    (finding,) = checked(write_attacker(tmp_path / "m", NO_PROBABILITIES[told]), results).findings
    assert finding.name == "contract"
    assert told in finding.what
    assert "predict_proba" in finding.remedy


def test_scores_of_another_shape_are_named_with_what_to_return(tmp_path, results, namespace):  # noqa: F811
    scores = "return np.full((number, classes - 1), 0.5, dtype=np.float32)"
    (finding,) = checked(write_attacker(tmp_path / "m", scores), results).findings
    assert (finding.name, finding.grave) == ("answer", True)
    assert "class probabilities" in finding.remedy


@pytest.mark.slow
def test_parameters_without_effect_and_those_that_cannot_be_tried_are_told(tmp_path, results, namespace):  # noqa: F811
    folder = write_attacker(tmp_path / "m", FIRST.format(column="self.which"))
    source = folder / "src" / "method.py"
    more = [
        'which: int = param(0, "column", minimum=0, maximum=2)',
        'strength: float = param(1.0, "nothing", minimum=0)',
        'mode: str = param("plain", "nothing")',
    ]
    target = '    target: str = param("subject"'
    source.write_text(source.read_text().replace(target, "".join(f"    {line}\n" for line in more) + target))
    seal(folder)
    report = checked(folder, results)
    assert report.good
    told = [(finding.name, finding.what.split("=")[0]) for finding in report.findings]
    assert told[0] == ("parameters", "strength")
    assert "of mode can be guessed" in told[1][1]
    assert len(told) == 2
