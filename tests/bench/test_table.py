import io

import pytest
from rich.console import Console
from rich.table import Table

from bench.report.table import _print_whole


def table(*cells):
    made = Table()
    for cell in cells:
        made.add_column(cell, no_wrap=True)
    made.add_row(*cells)
    return made


@pytest.mark.parametrize(("width", "flags_shown"), [(200, True), (65, True), (60, False), (30, False), (10, False)])
def test_a_table_is_never_cut_whatever_the_terminal(width, flags_shown):
    text = io.StringIO()
    names = ("a much longer name", "0.12 [0.00, 0.38]", "flag-one, flag-two")
    _print_whole(table(*names), table(names[0]), Console(file=text, width=width))
    assert "…" not in text.getvalue()
    assert text.getvalue().replace("\n", "").count("a much longer name") == 2
    assert ("flag-one, flag-two" in text.getvalue()) == flags_shown
