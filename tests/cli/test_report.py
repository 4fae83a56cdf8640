"""Pages with plots: one file, whatever stands in names, the same each time."""

from __future__ import annotations

import re
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest

from search.cli import report
from search.cli.report import plots
from search.cli.sheet import Tile
from search.evaluate.statistics import Interval

ODD = '<b>"$x$ & ünï 貓'
COUNTS = np.array([[8, 2], [0, 5]])


def interval(value: float) -> Interval:
    return Interval(value - 0.1, value, value + 0.1)


ROWS = [("photo", interval(0.8)), (ODD, interval(0.5))]
DRAWN = {
    "intervals": lambda: plots.accuracy_intervals(ROWS),
    "few-shot": lambda: plots.few_shot_curve(
        [(1, interval(0.3)), (2, interval(0.5))], zero_shot=interval(0.4), every=(7, interval(0.8))
    ),
    "bars": lambda: plots.robustness_bars(ROWS),
    "strengths": lambda: plots.strength_curves({ODD: [interval(0.5)] * 5}, clean=interval(0.6)),
    "lengths": lambda: plots.recall_by_length(["1-8", "9-20"], {ODD: [interval(0.5)] * 2}, counts=[3, 4]),
    "confusion": lambda: plots.confusion_matrix(COUNTS, ["cat", ODD]),
    "trade-off": lambda: plots.trade_off({"a": [(0, 1), (1, 0)]}, ring=(0.5, 0.5), title=ODD, x="kept"),
}


@pytest.fixture(scope="module")
def drawn() -> dict[str, report.Figure]:
    return {name: draw() for name, draw in DRAWN.items()}


@pytest.mark.parametrize("name", DRAWN)
def test_a_plot_is_whole_xml_with_words_and_no_style_rules(drawn, name):
    svg = drawn[name].svg
    root = ElementTree.fromstring(svg.replace("xlink:href", "href"))
    assert root.get("role") == "img"
    assert len(root.get("aria-label", "")) > 10
    assert not [element for element in root.iter() if "style" in element.attrib or "style" in element.tag]
    assert "currentColor" in svg
    assert "http" not in svg
    if name != "few-shot":
        assert any(ODD in text for text in [root.get("aria-label"), *root.itertext()])


def test_a_plot_drawn_again_is_the_same(drawn):
    assert plots.confusion_matrix(COUNTS, ["cat", ODD]) == drawn["confusion"]


def test_a_confusion_matrix_shows_counts_and_of_many_classes_the_confused(drawn):
    texts = list(ElementTree.fromstring(drawn["confusion"].svg.replace("xlink:href", "href")).itertext())
    assert [text for text in texts if text in {"8", "2", "0", "5"}] == ["8", "2", "5"]
    many = np.diag(np.full(plots.MOST_CLASSES + 1, 3))
    many[1, 2] = 7
    figure = plots.confusion_matrix(many, [f"name{number}" for number in range(len(many))])
    assert "name1" in figure.svg
    assert f"name{plots.MOST_CLASSES}<" not in figure.svg
    assert "30 of 31 classes" in figure.caption


def test_bars_say_the_drop_against_the_first(drawn):
    assert "-30.0%" in drawn["bars"].svg


def test_a_page_holds_its_parts_in_order_and_asks_for_nothing_else(drawn, make_photo, tmp_path):
    photo = make_photo(tmp_path / "a.png", 1)
    parts = (
        ODD,
        report.Table(("wording", "accuracy"), [("one", "50 %"), (ODD, "60 %")], marked=frozenset({1})),
        report.Photos((Tile(str(photo), badge="cat"),), heading="Mistakes"),
        report.Figures((drawn["bars"],)),
    )
    sections = [report.Section("First", parts), report.Section("Second", (drawn["intervals"],))]
    html = "".join(report.page("Wordings", sections))
    places = [
        html.index(words) for words in ("First</h2>", "<table>", "Mistakes</h3>", "data:image", "Second</h2>")
    ]
    assert places == sorted(places)
    assert "<b>" not in html
    assert html.count('<tr class="mark">') == 1
    assert not re.search(r'(src|href)="(?!data:|file:|#)', html)
    assert not re.search(r"<[^>]* style=", html)
    assert "".join(report.page("Wordings", sections)) == html


def test_without_matplotlib_a_page_is_refused_before_the_work(tmp_path, monkeypatch):
    from search.errors import UsageError

    monkeypatch.setattr(report, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"search\[evaluate\]"):
        report.check(str(tmp_path / "page.html"))


def test_the_report_room_is_light_until_a_plot_is_drawn():
    script = "import sys, search.cli.report; print({'matplotlib', 'numpy', 'PIL'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
