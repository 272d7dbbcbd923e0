"""The pages in a real browser: sort, filter, tooltips, viewer; nothing asked for from elsewhere; accessible; small."""

import shutil

import pytest

from tests.bench.test_leaderboard import measured  # noqa: F401 - a fixture
from tests.tiny import DATA, HERE, bench, shrink_budget

pytestmark = pytest.mark.slow
BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def site(measured, tmp_path_factory):  # noqa: F811
    folder = tmp_path_factory.mktemp("pages") / "site"
    assert bench("leaderboard", "--html", str(folder), results=measured).exit_code == 0
    return folder


@pytest.fixture(scope="module")
def browser():
    if BROWSER is None:
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture
def visit(browser, site):
    """Opens a page of a width in a colour scheme; at the end, nothing may have gone wrong on any."""
    said, asked, contexts = [], [], []

    def go(name="index.html", width=1280, **how):
        context = browser.new_context(viewport={"width": width, "height": 900}, **how)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto((site / name).as_uri())
        return page

    yield go
    for context in contexts:
        context.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


def changed(page, text):
    """Waits until the viewer's counter says something else."""
    from playwright.sync_api import expect

    expect(page.locator("#at")).not_to_have_text(text)


def column(page, number):
    return page.eval_on_selector_all(f"#methods tbody tr > :nth-child({number})", "cells => cells.map(c => c.textContent)")


def test_columns_sort_both_ways_and_say_so(visit):
    page = visit()
    assert len(column(page, 2)) == 3
    for name, number in (("Method", 2), ("Leakage", 4)):
        page.click(f"th button:text-is('{name}')")
        up = column(page, number)
        assert up == sorted(up)
        assert page.get_attribute(f"th:has(button:text-is('{name}'))", "aria-sort") == "ascending"
        page.keyboard.press("Enter")  # focus stays on the button
        assert column(page, number) == up[::-1]
        assert page.get_attribute(f"th:has(button:text-is('{name}'))", "aria-sort") == "descending"


def test_the_filter_holds_for_table_and_figure(visit):
    page = visit()
    page.fill("#filter", "GAUSS")
    assert column(page, 2) == ["gauss:std=0.1"]
    assert page.locator("#plot .point").count() == 1
    assert "1 of 3" in page.inner_text("#count")
    page.fill("#filter", "nothing like it")
    assert column(page, 2) == []


@pytest.fixture(scope="module")
def more(measured, tmp_path_factory):  # noqa: F811
    """The same with an attacker of gender, and a second data set."""
    results = tmp_path_factory.mktemp("more") / "results"
    shutil.copytree(measured, results)
    both = ["--no-mlflow", *HERE, "--threat", "semi-informed"]
    with pytest.MonkeyPatch.context() as patch:
        shrink_budget(patch)
        gender = ["--anonymizer", "identity,null,gauss:std=0.1", "--attacker", "bones-lda:target=gender", "--seeds", "2"]
        assert bench("run", "--dataset", DATA, *gender, *both, results=results).exit_code == 0
        other = ["--anonymizer", "identity,null", "--attacker", "bones-lda"]
        assert bench("run", "--dataset", f"{DATA},seed=1", *other, *both, results=results).exit_code == 0
    folder = results / "site"
    assert bench("leaderboard", "--html", str(folder), results=results).exit_code == 0
    return folder / "index.html"


def test_data_sets_and_attributes_can_be_chosen(visit, more):
    page = visit(more)
    names = page.eval_on_selector_all("#board option", "options => options.map(o => o.textContent)")
    first, second = sorted(range(2), key=lambda i: "seed=1" in names[i])
    page.select_option("#board", str(first))
    assert page.locator("#plot .point").count() == len(column(page, 2)) == 3
    targets = page.eval_on_selector_all("#target option", "options => options.map(o => o.value)")
    assert {"gender", "subject"} < set(targets)
    page.select_option("#target", "gender")
    assert set(column(page, 5)) == {"bones-lda:target=gender"}
    assert "does not rank" in page.inner_text("#level")
    page.select_option("#target", "subject")
    assert "bones-lda:target=gender" not in column(page, 5)
    page.select_option("#board", str(second))
    assert page.locator("#plot .point").count() == len(column(page, 2)) == 2
    assert "of 2" in page.inner_text("#count")


def test_levels_can_be_chosen_and_only_one_ranks(visit):
    page = visit()
    assert page.input_value("#threat") == "semi-informed"
    assert page.inner_text("#level") == "This view ranks methods."
    page.select_option("#threat", "ignorant")
    assert "does not rank" in page.inner_text("#level")
    assert set(column(page, 1)) == {"-"}


def test_pointer_and_keyboard_bring_the_same_tooltip(visit):
    page = visit()
    assert page.is_hidden("#tip")
    page.locator("#plot .point").first.locator("circle").last.hover()
    by_pointer = page.inner_text("#tip")
    assert "worst attacker" in by_pointer
    page.mouse.move(5, 5)
    assert page.is_hidden("#tip")
    page.locator("#plot .point").first.focus()
    assert page.inner_text("#tip") == by_pointer
    page.keyboard.press("Escape")
    assert page.is_hidden("#tip")


def test_a_point_leads_to_its_method(visit):
    page = visit()
    page.locator("#plot .point").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/method-0-*.html")
    assert page.inner_text("h1") in {"identity", "null", "gauss:std=0.1"}


def test_a_finger_asks_first_and_follows_then(visit):
    page = visit(width=360, has_touch=True)
    point = page.locator("#plot .point").last
    point.tap()
    assert "Tap again" in page.inner_text("#tip")
    assert page.url.endswith("index.html")
    page.locator("h1").tap()
    assert page.is_hidden("#tip")
    point.tap()
    assert page.url.endswith("index.html"), "after the tooltip is gone, a tap asks again"
    point.tap()
    page.wait_for_url("**/method-0-*.html")


def test_a_pointer_follows_at_once(visit):
    """Negative control of the above."""
    page = visit()
    page.locator("#plot .point").last.click()
    page.wait_for_url("**/method-0-*.html")
    assert page.inner_text("h1")


@pytest.mark.parametrize(("table", "head", "number"), [("attackers", "Leakage", 4), ("risk", "Most exposed person", 3)])
def test_tables_of_a_method_sort_both_ways(visit, table, head, number):
    page = visit("method-0-gauss_std_0.1.html")
    cells = f"#{table} tbody tr > :nth-child({number})"
    read = "cells => cells.map(c => Number(c.dataset.key))"
    before = page.eval_on_selector_all(cells, read)
    button = f"#{table} th button:text-is('{head}')"
    page.click(button)
    assert page.eval_on_selector_all(cells, read) == sorted(before) != before
    page.click(button)
    assert page.eval_on_selector_all(cells, read) == sorted(before, reverse=True)
    assert page.get_attribute(f"#{table} th:has(button:text-is('{head}'))", "aria-sort") == "descending"


def test_the_viewer_plays_pauses_and_draws(visit):
    page = visit("method-0-gauss_std_0.1.html")
    picture = "document.getElementById('canvas').toDataURL()"
    # Number and picture in one call: between two calls the next frame may be drawn.
    first, drawn = page.evaluate(f"[document.getElementById('at').textContent, {picture}]")
    changed(page, first)
    page.click("#play")
    assert page.inner_text("#play") == "Play"
    stopped = page.inner_text("#at")
    page.wait_for_timeout(300)
    assert page.inner_text("#at") == stopped
    assert page.evaluate(picture) != drawn


def test_nothing_moves_for_those_who_want_it_still(visit):
    page = visit("method-0-gauss_std_0.1.html", reduced_motion="reduce")
    page.wait_for_timeout(300)
    assert page.inner_text("#at").startswith("1 of")
    page.click("#play")
    changed(page, "1 of 64")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_pages_are_accessible_and_fit(visit, site, scheme, width):
    from axe_playwright_python.sync_playwright import Axe

    for name in ("index.html", "reading.html", "method-0-gauss_std_0.1.html", "method-0-null.html"):
        page = visit(name, width, color_scheme=scheme)
        found = Axe().run(page)
        assert found.violations_count == 0, (name, found.generate_report())
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name


def test_axe_would_find_a_picture_without_a_text(visit):
    """Positive control of the check above."""
    from axe_playwright_python.sync_playwright import Axe

    page = visit()
    page.evaluate("document.getElementById('main').append(document.createElement('img'))")
    assert Axe().run(page).violations_count > 0


def test_without_scripts_the_numbers_are_there(visit):
    page = visit(java_script_enabled=False)
    assert "gauss:std=0.1" in page.inner_text("main")


def test_the_overview_is_small(site):
    assert (site / "index.html").stat().st_size < 2**20
