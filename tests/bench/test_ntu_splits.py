"""Splits of NTU RGB+D on the names of its real clips."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from bench.data import ntu_files
from bench.data.ntu import NTU60, NTU120
from bench.protocols import Protocol, instantiate


@pytest.fixture(scope="module")
def samples(bench_data) -> Path:
    return bench_data / "NTU-RGBD-samples"


@pytest.fixture(scope="module")
def real_labels(samples):
    """Labels of all clips of NTU RGB+D 60 that are not listed as missing, from their names."""
    import lzma

    import pandas as pd

    with lzma.open(samples / "NTU_RGBD60_available_names.txt.xz", "rt") as file:
        names = file.read().split()
    return pd.DataFrame([ntu_files.clip_labels(f"{name.removesuffix('.skeleton')}.skeleton") for name in names]).convert_dtypes()


@pytest.mark.parametrize(
    ("protocol", "target", "train", "test"),
    [
        ("xsub", "action", 40_091, 16_487),
        ("xview", "subject", 37_646, 18_932),
        ("xrep", "subject", 28_291, 28_287),
        ("xrep-parity", "subject", 28_297, 28_281),
    ],
)
def test_sizes_of_the_real_splits(real_labels, protocol, target, train, test):
    """As counted elsewhere from the same names, and as the literature has them for xsub and xview."""
    split = dataclasses.replace(NTU60.protocols[protocol].splits[target], alone=False)
    part = instantiate(Protocol("test/1", {target: split}), target, real_labels, "ntu60")
    assert (len(part.train) + len(part.validation), len(part.test)) == (train, test)


def test_clips_of_two_people_say_nothing_of_who_is_who(real_labels):
    """46,231 clips show one person; under xview all count, as in the literature."""
    for protocol in ("xrep", "xrep-parity", "xaction"):
        part = instantiate(NTU60.protocols[protocol], "subject", real_labels, "ntu60")
        assert len(part.train) + len(part.validation) + len(part.test) == 46_231
    assert not NTU60.protocols["xview"].splits["subject"].alone
    assert not NTU60.protocols["xsub"].splits["action"].alone
    assert NTU120.protocols["linkage"].splits["linkage"].alone


def test_priors_of_the_real_data(real_labels):
    assert len(real_labels) == 56_578
    part = instantiate(NTU60.protocols["xview"], "subject", real_labels, "ntu60")
    assert (round(part.prior, 3), round(part.prior_top5, 3)) == (0.101, 0.437)
    sessions = instantiate(NTU60.protocols["xsetup-reid"], "subject", real_labels, "ntu60")
    assert sessions.classes == (1, 2, 3, 4, 7, 8, 9, 10, 13, 15, 16, 17, 18, 19, 20, 21, 25, 27, 28, 37, 39)


def test_linkage_is_learnt_on_the_first_people_and_asked_of_the_others():
    import pandas as pd

    early, late = (1, 2, 59, 60), (61, 62, 119, 120)
    seen = [(1, 1, early), (2, 1, early), (8, 1, early), (8, 20, late), (41, 18, late), (42, 18, late)]
    rows = [
        {"clip": f"{s}-{p}-{a}-{r}", "subject": p, "action": a, "setup": s, "replication": r, "performance": f"{s}-{p}-{a}-{r}"}
        for p, s, actions in seen
        for a in actions
        for r in range(1, 9)
    ]
    labels = pd.DataFrame(rows).convert_dtypes()
    part = instantiate(NTU120.protocols["linkage"], "linkage", labels, "ntu120")
    learnt, asked = np.concatenate([part.train, part.validation]), part.test
    assert set(labels["subject"][learnt]) == {1, 2, 8}
    assert set(labels["action"][learnt]) == set(early)
    assert set(labels["subject"][asked]) == {41, 42}  # person 8, who came back, is in neither
    assert set(labels["action"][asked]) == set(late)
    assert "linkage" not in NTU60.protocols
