"""What several files of tests look at."""

import json
import shutil

import pytest

from tests.tiny import RUN, bench, shrink_budget


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A finished run, its JSON document and what the command said; to look at, or to copy, never to change."""
    results = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        shrink_budget(patch)
        outcome = bench(*RUN, "--json", str(results / "rows.json"), results=results)
    assert outcome.exit_code == 0, outcome.output
    return results, json.loads((results / "rows.json").read_text()), outcome


@pytest.fixture(scope="session")
def measured(finished):
    """The results of that run."""
    return finished[0]


@pytest.fixture
def copied(measured, tmp_path):
    """A copy of them."""
    return shutil.copytree(measured, tmp_path / "copy")
