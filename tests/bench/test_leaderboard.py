"""The board: reasons; its files, and the contents of its pages."""

import csv
import dataclasses
import json
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tomlkit

from bench.files import write_json
from bench.grid import Grid
from bench.leaderboard import Board, Change
from bench.records import records
from bench.report import pages
from bench.report.board import load_boards
from bench.report.motion import Motion, motion_of
from bench.report.pages import write_site
from bench.report.published import write_published
from bench.threat import THREATS
from bench.verdicts import TOLERANCE, write_reproductions
from tests.tiny import DATA, HERE, RUN, bench, reseal, rewrite, shrink_budget


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A results folder with a small grid."""
    results = tmp_path_factory.mktemp("board")
    with pytest.MonkeyPatch.context() as patch:
        shrink_budget(patch)
        assert bench(*RUN, "--seeds", "2", results=results).exit_code == 0
        yield results


def test_the_terminal_shows_every_method(measured):
    said = bench("leaderboard", results=measured)
    assert said.exit_code == 0
    for name in ("identity", "null", "gauss:std=0.1", "builtin", "Hypervolume"):
        assert name in said.output


def test_files_hold_what_the_terminal_shows(measured, tmp_path):
    files = ["--json", str(tmp_path / "board.json"), "--csv", str(tmp_path / "board.csv")]
    assert bench("leaderboard", *files, results=measured).exit_code == 0
    (board,) = json.loads((tmp_path / "board.json").read_text())["boards"]
    lines = list(csv.DictReader((tmp_path / "board.csv").read_text().splitlines()))
    assert [line["method"] for line in lines] == [method["anonymizer"] for method in board["methods"]]
    assert {method["measured"] for method in board["methods"]} == {record_date(measured)}
    assert {line["when"] for line in lines} == {f"measured on {record_date(measured)}"}
    identity = next(method for method in board["methods"] if method["anonymizer"] == "identity")
    assert "leakage_of_10_clips" not in identity  # nobody has ten
    assert {line["of 10 clips [95 %]"] for line in lines} == {"-"}
    assert set(identity["within"]) == {"0.05", "0.10", "0.20", "0.40"}
    piped = bench("leaderboard", "--json", "-", results=measured)
    assert json.loads(piped.stdout)["boards"] == [board]


def record_date(results):
    manifest = next((results / "records").rglob("*.manifest.json"))
    return json.loads(manifest.read_text())["finished"][:10]


def test_filters_and_empty_folders_are_told(measured, tmp_path):
    assert bench("leaderboard", "--dataset", "synthetic", results=measured).exit_code == 0
    for results, filters in ((measured, ["--dataset", "utd-mhad"]), (tmp_path, [])):
        said = bench("leaderboard", *filters, results=results)
        assert said.exit_code == 2
        assert "no records" in said.output


def test_explain_says_why_a_method_is_where_it_is(measured):
    said = bench("leaderboard", "--explain", "gauss:std=0.1", results=measured).output
    assert "worst semi-informed attacker" in said
    assert "budget" in said
    record = next(p for p in (measured / "records").rglob("*.json") if not p.name.endswith(".manifest.json"))
    assert "it counts" in bench("leaderboard", "--explain", record.stem, results=measured).output
    wrong = bench("leaderboard", "--explain", "gaus:std=0.1", results=measured)
    assert wrong.exit_code == 2
    assert "did you mean gauss:std=0.1" in wrong.output


def test_explain_takes_a_method_as_it_is_written_and_tells_an_attacker_apart(measured):
    whole = bench("leaderboard", "--explain", "gauss:std=0.1", results=measured).output
    assert bench("leaderboard", "--explain", "gauss:std=.1", results=measured).output == whole
    attacker = bench("leaderboard", "--explain", "bones-lda", results=measured)
    assert (attacker.exit_code, "bones-lda is an attacker" in attacker.output) == (2, True)


def test_explain_says_that_a_level_is_missing(tmp_path, monkeypatch):
    shrink_budget(monkeypatch)
    run = ["run", "--dataset", DATA, "--anonymizer", "gauss:std=0.1", "--attacker", "bones-lda", "--threat", "ignorant"]
    bench(*run, "--no-controls", "--no-mlflow", *HERE, results=tmp_path)
    said = bench("leaderboard", "--explain", "gauss:std=0.1", results=tmp_path).output
    assert "no place: only ignorant attackers met it" in said


def test_pages_replace_earlier_ones_and_nothing_else(measured, tmp_path):
    site = tmp_path / "site"
    for _ in range(2):
        assert bench("leaderboard", "--html", str(site), results=measured).exit_code == 0
    names = {path.name for path in site.iterdir()}
    assert {"index.html", "reading.html", "leaderboard.json", "leaderboard.csv", "method-0-identity.html"} <= names
    (site / "index.html").unlink()  # its own pages may be damaged
    assert bench("leaderboard", "--html", str(site), results=measured).exit_code == 0
    assert (site / "index.html").is_file()


@pytest.mark.parametrize("beside", [(), ("leaderboard.json",), ("leaderboard.json", "index.html", ".bench-pages")])
def test_pages_never_replace_what_is_not_theirs(measured, tmp_path, beside):
    """Tables beside it, as in `results/published`, or earlier pages, do not make a file one of ours."""
    for name in ("thesis.txt", *beside):
        (tmp_path / name).write_text("index.html\nleaderboard.json\n" if name == ".bench-pages" else "years of work")
    said = bench("leaderboard", "--html", str(tmp_path), results=measured)
    assert said.exit_code == 2
    assert "holds other things" in said.output
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def renamed(measured, **names):
    """The same measurements under other names of method, attacker and the attacker's provider."""
    attack = {key: names[key] for key in ("provider",) if key in names}
    of = {key: names[key] for key in ("anonymizer", "attacker") if key in names}
    return dataclasses.replace(
        measured,
        records=tuple(
            dataclasses.replace(
                record,
                data={
                    **record.data,
                    "names": {**record.data["names"], **of},
                    "attacker": {**record.data["attacker"], **attack},
                },
            )
            for record in measured.records
        ),
    )


PLACES = ("anonymizer", "attacker", "provider", "owner", "isolation", "date", "breaker", "author", "licence", "paper", "trained")


def test_strangers_names_cannot_break_out_of_a_page(measured, tmp_path):
    """Every name that a stranger chooses tries to; each is on its pages, escaped."""
    evil = {place: f"</script><script>alert('{place}')</script><b>{place}" for place in PLACES}
    (board,) = load_boards(measured, None, None, None).boards
    names = {"anonymizer": evil["anonymizer"], "attacker": evil["attacker"], "provider": evil["provider"]}
    rows = tuple(
        dataclasses.replace(row, provider=evil["owner"], isolation=evil["isolation"], measured=evil["date"])
        for row in Board.of([renamed(m, **names) for m in board.grid.measured if m.first["target"] == "subject"]).rows
    )
    change = Change("2026-01-01", evil["breaker"], evil["provider"], 0.1, 0.2)
    rows = tuple(dataclasses.replace(row, history=(change,)) for row in rows)
    results = stated(tmp_path, evil, rows[0])
    write_site([dataclasses.replace(board, grid=Grid.of(rows[0].rows), rows=rows)], tmp_path / "site", results)
    written = {path.name: path.read_text() for path in (tmp_path / "site").glob("*.html")}
    for name, text in written.items():
        assert "<script>alert" not in text, name
        assert "<b>" not in text, name
    (method,) = (text for name, text in written.items() if name.startswith("method-"))
    for place in PLACES:
        assert f"&lt;/script&gt;&lt;script&gt;alert(&#39;{place}&#39;)&lt;/script&gt;&lt;b&gt;{place}" in method, place
    assert "\\u003c/script>\\u003cscript>alert('anonymizer')" in written["index.html"]


def stated(results, texts, row):
    """A results folder with the submission that a row's records say they come from, and what its authors state."""
    files = results / "submissions" / "acme" / "1.0" / "files"
    files.mkdir(parents=True)
    manifest = {"schema": 1, "kind": "code", "name": "acme", "version": "1.0", "code": {"target": "acme:Acme"}}
    manifest |= {"authors": [texts["author"]], "licence": texts["licence"], "paper": texts["paper"]}
    (files / "submission.toml").write_text(tomlkit.dumps(manifest | {"training_data": [texts["trained"], "synthetic:people=4"]}))
    data = row.rows[0].first
    data["anonymizer"] = {**data["anonymizer"], "parameters": {"submission": "1234"}}
    history = [{"state": "listed", "date": "2026-01-01", "why": ""}]
    write_json(
        files.parent / "state.json",
        {"name": "acme", "version": "1.0", "provider": "acme 1.0", "identity": "1234", "history": history},
    )
    return results


def page_of(results, folder, name):
    (board,) = load_boards(results, None, None, None).boards
    write_site([board], folder, results)
    return board, (folder / f"method-0-{name}.html").read_text()


def test_a_page_tells_what_the_authors_state(measured, tmp_path):
    texts = {"author": "A. Uthor", "licence": "MIT", "paper": "Uthor 2026", "trained": "utd-mhad"}
    (board,) = load_boards(measured, None, None, None).boards
    write_site([board], tmp_path / "site", stated(tmp_path, texts, board.rows[0]))
    (text,) = (path.read_text() for path in (tmp_path / "site").glob("method-*.html") if "A. Uthor" in path.read_text())
    for said in ("MIT", "Uthor 2026", "utd-mhad, synthetic:people=4", "Measured on what it was trained with"):
        assert said in text


def test_a_page_holds_every_seed_every_release_and_every_person(measured, tmp_path):
    """Noise is released three times with each of two seeds; what it leaks each time is counted here from the predictions."""
    board, text = page_of(measured, tmp_path / "site", "gauss_std_0.1")
    row = next(row for row in board.rows if row.anonymizer == "gauss:std=0.1")
    m = next(m for m in row.rows if m.first["names"]["attacker"] == "bones-lda" and m.first["threat"] == "ignorant")
    found, recall = [], []
    for record in m.records:
        arrays = record.predictions()
        hits = arrays["attack"].argmax(axis=2) == arrays["label"]
        recall.append([[of[arrays["label"] == k].mean() for k in np.unique(arrays["label"])] for of in hits])
        found.append(" ".join(f"{value:.2f}" for value in np.mean(recall[-1], axis=1)))
    assert np.shape(recall) == (2, 3, 4)  # seeds, releases, people
    assert f"0: {found[0]}; 1: {found[1]}</td>" in text
    people = np.sort(np.mean(recall, axis=(0, 1)))
    assert f"{' '.join(f'{value:.2f}' for value in people)}</td>" in text
    assert len(set(people)) > 1, "else any order would do"
    charts = text.split("<svg")[1:]
    assert len(charts) == 2  # a level each
    for chart in charts:
        assert chart.count("<rect") == 4
        assert 'class="chance"' in chart
        assert 'class="prior"' in chart


def test_controls_expose_nobody(measured, tmp_path):
    """Nor do scores that strangers sent, which are shown as a control is."""
    _, text = page_of(measured, tmp_path / "site", "identity")
    exposed = text.partition("Whom it exposes")[2]
    assert "bones-lda" in exposed
    assert "shuffled-labels" in text
    assert "shuffled-labels" not in exposed.partition("<h2>")[0]


def luminance(colour):
    """Relative luminance of "#rrggbb" (WCAG 2.2)."""
    parts = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]


def contrast(one, other):
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_everything_drawn_stands_out_in_light_and_dark():
    """At least 3 : 1 (WCAG 1.4.11), by the colours that stand in our own files; black on white is 21 : 1."""
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#56B4E9", "#ffffff") < 3, "negative control"
    site = Path(pages.__file__).parent / "site"
    light, dark = (dict(re.findall(r"--(\w+): (#\w{6})", part)) for part in (site / "site.css").read_text().split("@media")[:2])
    assert {"paper", "band", "bar"} <= light.keys() == dark.keys()
    points, figures = (re.findall(r'"(#[0-9A-Fa-f]{6})"', (site / name).read_text()) for name in ("overview.js", "viewer.js"))
    assert (len(points), len(figures)) == (10, 2)
    for scheme in (light, dark):
        seen = [(colour, "paper") for colour in (*points, scheme["bar"], scheme["soft"], scheme["link"], scheme["alarm"])]
        for colour, ground in seen + [(colour, "band") for colour in figures]:
            assert contrast(colour, scheme[ground]) >= 3, (colour, ground)


def test_only_what_changes_is_announced(measured, tmp_path):
    """`role=alert` is for what appears while a page is read: the overview's failed controls, as another data set is chosen."""
    (board,) = load_boards(measured, None, None, None).boards
    grid = Grid.of(board.grid.measured)
    grid.__dict__["failed_controls"] = ("null leaks",)
    write_site([dataclasses.replace(board, grid=grid)], tmp_path / "site", measured)
    for path in (tmp_path / "site").glob("*.html"):
        text = path.read_text()
        assert "null leaks" in text
        assert text.count('role="alert"') == (path.name == "index.html")


def test_the_overview_of_a_whole_board_is_small(measured, tmp_path, monkeypatch):
    """31 methods on 4 data sets, each met by attackers of 4 kinds at 4 levels."""
    monkeypatch.setattr(pages, "motion_of", lambda row, results: Motion(None, None, [], 30.0, "No clip."))
    (board,) = load_boards(measured, None, None, None).boards
    some = [m for m in board.grid.measured if m.first["names"]["anonymizer"] == "gauss:std=0.1" and not m.is_control]
    kinds = [(target, level) for target in ("subject", "gender", "age_group", "linkage") for level in THREATS]

    def another(number):
        named = renamed(some[0], anonymizer=f"a-method-of-usual-name:strength=0.{number:02d}", attacker="shiftgcn-reid")
        first = [{**named.first, "target": target, "threat": level} for target, level in kinds]
        return [dataclasses.replace(named, records=(dataclasses.replace(named.records[0], data=data),)) for data in first]

    whole = Board.of([m for number in range(31) for m in another(number)])
    write_site([whole] * 4, tmp_path / "site", measured)
    size = (tmp_path / "site" / "index.html").stat().st_size
    assert (tmp_path / "site" / "index.html").read_text().count("a-method-of-usual-name") > 31 * 4 * 16
    assert size < 1e6, size


def test_pages_show_synthetic_people_only(measured):
    (board,) = load_boards(measured, None, None, None).boards
    row = next(row for row in board.rows if row.anonymizer == "gauss:std=0.1")
    motion = motion_of(row, measured)
    assert "from the release that was measured" in motion.why
    assert motion.raw.shape == motion.released.shape
    assert 20 < np.abs(motion.raw - motion.released).std() < 200, "a decimetre of noise, in millimetres"
    real = dict(row.rows[0].first) | {"dataset": "utd-mhad"}
    other = SimpleNamespace(first=real, records=row.rows[0].records)
    shown = motion_of(dataclasses.replace(row, rows=(other,)), measured)
    assert "measured on others" in shown.why
    learnt = dataclasses.replace(row, rows=(other,), anonymizer="adversarial")
    assert motion_of(learnt, measured).raw is None
    strange = dict(real) | {"anonymizer": {**real["anonymizer"], "parameters": {"submission": "abc"}}}
    assert motion_of(dataclasses.replace(row, rows=(SimpleNamespace(first=strange),)), measured).raw is None


def when(results):
    """What the board says of each method: measured or reproduced, and when."""
    (board,) = load_boards(results, None, None, None).boards
    return {row.anonymizer: row.checked for row in board.rows}


def test_only_an_audit_makes_a_method_reproduced(measured, tmp_path, monkeypatch):
    """One of the eight records of noise is measured again; of one that was written anew since, nothing is known."""
    shrink_budget(monkeypatch)
    results = shutil.copytree(measured, tmp_path / "copy")
    record = next(r for r in records(results / "records") if r.data["names"]["anonymizer"] == "gauss:std=0.1")
    once, today = f"measured on {record_date(results)}", f"{datetime.now(UTC):%Y-%m-%d}"
    write_reproductions([(record, True)], 0.1, results)
    write_reproductions([(record, False)], 0, results)
    assert set(when(results).values()) == {once}, "neither is within a tenth of a probability nor to the bit what is asked"
    assert bench("audit", record.data["key"], *HERE, results=results).exit_code == 0
    assert when(results) == {"identity": once, "null": once, "gauss:std=0.1": f"reproduced on {today} (1 of 8 records)"}
    for path in (record.path, record.path.with_suffix(".npz")):
        content = path.read_bytes()
        path.write_bytes(content + b" ")
        reseal(record.path)
        assert set(when(results).values()) == {once}, "not the file that was audited"
        path.write_bytes(content)
        reseal(record.path)
    write_reproductions([(record, False)], TOLERANCE, results)
    assert when(results)["gauss:std=0.1"] == f"NOT reproduced on {today} (1 of 8 records)"
    (board,) = load_boards(results, None, None, None).boards
    assert {row.anonymizer: row.budget_rank is None for row in board.rows}["gauss:std=0.1"], "its numbers are not to be relied on"
    assert "no rank for not-reproduced" in bench("leaderboard", "--explain", "gauss:std=0.1", results=results).output
    assert "NOT reproduced" in bench("leaderboard", results=results).output
    assert "NOT reproduced" in bench("leaderboard", "--explain", "gauss:std=0.1", results=results).output


def test_an_audit_that_could_not_be_done_says_nothing(measured, tmp_path, monkeypatch):
    shrink_budget(monkeypatch)
    results = shutil.copytree(measured, tmp_path / "copy")
    record = next(records(results / "records"))
    rewrite(record, {**record.data, "attacker": {**record.data["attacker"], "code": 99}})
    assert bench("audit", record.data["key"], *HERE, results=results).exit_code == 1
    assert not (results / "audits").exists()


def test_all_that_is_published_is_made_by_one_command(measured, tmp_path):
    """The same files as the commands that make each alone; twice gives the same bytes; other files stay."""
    (tmp_path / "older.csv").write_text("kept")
    other = "rank,method,use [95 %],worst leakage [95 %],worst attacker,within,privacy rank,ignorant,flags"
    (tmp_path / "zoo-board.csv").write_text(
        f"dataset,protocol,preset,version,{other}\nzoo,p/1,quick,v9,1,a|b_c\\,-,0.5,lda,-,2-3,0.4,nuisance\n"
    )
    (tmp_path / "empty-board.csv").write_text("method\n")
    kept = {}
    for _ in range(2):
        assert bench("leaderboard", "--publish", str(tmp_path), results=measured).exit_code == 0
        made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        assert kept in ({}, made)
        kept = made
    name = "synthetic_people=4_motions=3_cameras=1"
    boards = {f"{name}-board.csv", f"{name}-board.txt", f"{name}-board.json"}
    others = {"older.csv", "zoo-board.csv", "empty-board.csv"}
    assert made.keys() == {*others, f"{name}.csv", f"{name}.txt", f"{name}.png", *boards, "boards.md"}
    assert made["older.csv"] == b"kept"
    assert made[f"{name}.txt"].decode() == bench("table", "--csv", str(tmp_path / "a.csv"), results=measured).stdout
    assert made[f"{name}.csv"] == (tmp_path / "a.csv").read_bytes()
    assert made[f"{name}.png"].startswith(b"\x89PNG")
    said = bench("leaderboard", "--csv", str(tmp_path / "b.csv"), "--json", str(tmp_path / "b.json"), results=measured)
    assert made[f"{name}-board.txt"].decode() == said.stdout
    assert made[f"{name}-board.csv"] == (tmp_path / "b.csv").read_bytes()
    assert made[f"{name}-board.json"] == (tmp_path / "b.json").read_bytes()
    both, mine, zoo = made["boards.md"].decode().split("\n## ")[1:]
    assert "| method | synthetic:people=4,motions=3,cameras=1 | zoo |" in both
    assert r"| a\|b\_c\\ |  | 0.5 / - / - |" in both
    with (tmp_path / "b.csv").open() as file:
        raw = next(line for line in csv.DictReader(file) if line["method"] == "identity")
    worst, ten, use = (raw[name].split(" ")[0] for name in ("worst leakage [95 %]", "of 10 clips [95 %]", "use [95 %]"))
    assert f"| identity | {worst} / {ten} / {use} |  |" in both
    assert mine.startswith("synthetic:people=4,motions=3,cameras=1 (protocol xrep/1, preset quick, version ")
    with (tmp_path / "b.csv").open() as file:
        lines = {f"| {line['method']} | {line['ignorant']} | {line['worst leakage [95 %]']} |" for line in csv.DictReader(file)}
    assert {line for line in lines if line in mine} == lines
    assert r"| a\|b\_c\\ | 0.4 | 0.5 | lda | - | - | - | 1 | 2-3 | nuisance |" in zoo


def test_tables_of_one_data_set_do_not_overwrite_each_other(measured, tmp_path):
    (board,) = load_boards(measured, None, None, None).boards
    other = dataclasses.replace(board, group=board.group._replace(preset="standard"))
    third = dataclasses.replace(board, group=board.group._replace(dataset="utd-mhad"))
    written = write_published([board, other, third], tmp_path)
    assert len(set(written)) == 3 * 6 + 1
    assert set(written) == set(tmp_path.iterdir())
    names = {path.stem for path in tmp_path.glob("*.png")}
    alike = "synthetic_people=4_motions=3_cameras=1-xrep_1"
    assert names == {f"{alike}-quick", f"{alike}-standard", "utd-mhad"}
