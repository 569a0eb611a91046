"""The page in a real browser: nothing is lost at any width or on paper, all text can be read, nothing runs or loads.

Chromium comes from the system (Debian: `apt install chromium poppler-utils`), Playwright drives it; without them the tests
skip.
"""

import os
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from report_helpers import keep_entries, make_certificate, make_row
from test_report_answers import curve_entries
from test_report_page import NASTY, example

from crossguard.evaluate import Estimate
from crossguard.report import Difference, RunView, render_report
from crossguard.report.collect import open_runs, result_views
from crossguard.report.views import CurveView

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt install chromium"),
    pytest.mark.slow,
]

CURVE = CurveView(
    radii=((0, 0), (1, 1), (2, 2), (3, 3)),
    certified={"accuracy": (0.9, 0.5, 0.2, 0.0)},
    baseline={"accuracy": (0.8, 0.4, 0.1, 0.0)},
    attacked={"accuracy": (0.95, 0.7, 0.6, None)},
    designs={"published, balanced": {"accuracy": (0.9, 0.6, 0.3, 0.0)}},
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    home = str(tmp_path_factory.mktemp("home"))
    own = dict.fromkeys(("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"), home)
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], env={**os.environ, **own})
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A comparison with everything on it, and one of many rows."""
    folder = tmp_path_factory.mktemp("pages")
    grid = np.linspace(0, 1, 64).reshape(8, 8)
    axes = tuple(tuple(range(8)) for _ in range(2))
    more = Difference(
        "base", {c: {m: Estimate(3.0, -1.0, 7.0, 100, 25) for m in ("tr@1", "ir@1")} for c in ("clean", "joint")}
    )
    views = [
        make_row("base", examples=[example()], notes=["A note."], warnings=["A warning."]),
        make_row("a model of quite a long name", difference=more),
        make_row(
            NASTY, attack=NASTY, threat=NASTY, notes=[NASTY], columns=("clean", "image", "text", "depth", "joint")
        ),
    ]
    whole = render_report(
        title=NASTY,
        settings=[RunView("one", {"command": "crossguard " + "x" * 300, "seed": "0"}), RunView("two", {"seed": "1"})],
        results=views,
        certificates=[make_certificate(accuracy=grid, baseline=grid[::-1], radii=axes, curve=CURVE)],
    )
    path = keep_entries(folder / "run", [*curve_entries("a"), *curve_entries("b", weak=3.0), *curve_entries("c")])
    many = [replace(view, threat=view.threat) for view in result_views(open_runs([path]))]
    found = {}
    for name, text in {"whole": whole, "many": render_report(title="many", results=many)}.items():
        found[name] = folder / f"{name}.html"
        found[name].write_text(text, encoding="utf-8")
    return found


def opened(browser, path, *, width=1280, scheme="light", **options):
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **options)
    page = context.new_page()
    page.goto(path.as_uri())
    return page


@pytest.mark.parametrize("name", ["whole", "many"])
@pytest.mark.parametrize("width", [390, 768, 1280])
def test_no_width_loses_anything_without_a_hint(browser, files, name, width):
    page = opened(browser, files[name], width=width)
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    beyond = page.evaluate(
        """width => [...document.querySelectorAll('main *')]
        .filter(e => !e.closest('.scroll') && !e.closest('svg') && e.getBoundingClientRect().right > width + 1)
        .map(e => e.outerHTML.slice(0, 200))""",
        width,
    )
    assert beyond == []
    hints = page.evaluate(
        """[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth)
        .map(e => [getComputedStyle(e).backgroundImage.includes('gradient'), e.tabIndex])"""
    )
    assert all(hint == [True, 0] for hint in hints)


CONTRASTS = """() => {
  const channel = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = c => 0.2126 * channel(c[0] / 255) + 0.7152 * channel(c[1] / 255) + 0.0722 * channel(c[2] / 255);
  const parse = text => {
    const n = (text.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
    return text.startsWith('color(srgb') ? [255 * n[0], 255 * n[1], 255 * n[2], n[3] ?? 1] : [n[0], n[1], n[2], n[3] ?? 1];
  };
  const over = (top, below) => top.slice(0, 3).map((v, i) => top[3] * v + (1 - top[3]) * below[i]);
  const behind = e => {
    const chain = [];
    for (let at = e; at; at = at.parentElement) chain.push(parse(getComputedStyle(at).backgroundColor));
    return chain.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
  };
  const found = [];
  const note = (e, ink, ground) => {
    const [a, b] = [light(ink), light(ground)].sort((x, y) => x - y);
    found.push([(b + 0.05) / (a + 0.05), e.tagName + '.' + e.getAttribute('class') + ': ' + e.textContent.trim().slice(0, 40)]);
  };
  document.querySelectorAll('details').forEach(d => d.open = true);
  for (const e of document.querySelectorAll('main *')) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.getClientRects().length || ['STYLE', 'SCRIPT', 'title'].includes(e.tagName)) continue;
    const style = getComputedStyle(e);
    if (e instanceof SVGElement) {
      let ground = behind(e.closest('figure') ?? document.body);
      const cell = e.parentElement.querySelector(':scope > rect.cell');
      if (cell) {
        const under = parse(getComputedStyle(e.parentElement.querySelector(':scope > rect.under')).fill);
        const fill = parse(getComputedStyle(cell).fill);
        ground = over([...fill.slice(0, 3), Number(cell.getAttribute('fill-opacity'))], under);
      }
      note(e, over(parse(style.fill), ground), ground);
    } else {
      const ground = behind(e);
      note(e, over(parse(style.color), ground), ground);
    }
  }
  return found.sort((x, y) => x[0] - y[0]);
}"""


@pytest.mark.parametrize("name", ["whole", "many"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_can_be_read(browser, files, name, scheme):
    found = opened(browser, files[name], scheme=scheme).evaluate(CONTRASTS)
    assert len(found) > 100
    print(f"least contrast of {name}, {scheme}: {found[0]}")
    assert found[0][0] >= 4.5, found[:5]


def test_print_holds_every_column_and_what_is_folded(browser, files, tmp_path):
    if shutil.which("pdftotext") is None:
        pytest.skip("pdftotext is not installed: apt install poppler-utils")
    for name, wanted in {
        "whole": ("n / groups", "100 / 25", "joint", "depth only", "All settings of", "more figures", "accelerometer"),
        "many": ("n / groups", "points, joint", "100 / 50", "L-inf 4/255", "2 words"),
    }.items():
        page = opened(browser, files[name], scheme="dark")
        target = tmp_path / f"{name}.pdf"
        page.pdf(
            path=target,
            format="A4",
            print_background=True,
            margin=dict.fromkeys(("top", "bottom", "left", "right"), "15mm"),
        )
        text = subprocess.run(["pdftotext", "-raw", target, "-"], capture_output=True, text=True, check=True).stdout
        said = " ".join(text.split()).lower()
        for words in wanted:
            assert words.lower() in said, words
        assert name == "many" or "x" * 200 in "".join(said.split())  # a setting that is folded on the screen
        for column in page.evaluate("[...document.querySelectorAll('thead th')].map(e => e.textContent.trim())"):
            assert "".join(column.lower().split()) in "".join(said.split()), column
        page.emulate_media(media="print")
        page.set_viewport_size({"width": 680, "height": 900})  # A4 less its margins
        assert page.evaluate("document.documentElement.scrollWidth") <= 680
        cut = page.evaluate(
            "[...document.querySelectorAll('table')].filter(e => e.getBoundingClientRect().right > 681).length"
        )
        assert cut == 0


def test_nothing_runs_and_nothing_is_asked_for(browser, files):
    context = browser.new_context()
    page = context.new_page()
    asked, said = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("console", lambda message: said.append(message.text))
    for path in files.values():
        page.goto(path.as_uri())
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert {url for url in asked if not url.startswith("data:")} == {path.as_uri() for path in files.values()}
    assert said == []
    assert page.evaluate("document.querySelectorAll('script').length") == 1


def test_rows_are_sorted_and_filtered_by_hand_and_are_all_there_without_scripts(browser, files):
    page = opened(browser, files["many"])
    rows = "[...document.querySelectorAll('.sortable tbody tr')].filter(r => !r.hidden)"
    last = f"{rows}.map(r => Number(r.cells[r.cells.length - 1].dataset.value))"
    before = page.evaluate(last)
    assert len(before) == 18
    button = page.locator(".sortable thead th:last-child button")
    button.click()
    assert page.evaluate(last) == sorted(before, reverse=True)
    button.click()
    assert page.evaluate(last) == sorted(before)
    page.locator(".filter select").select_option("image: L-inf 4/255, text: 2 words")
    assert page.evaluate(f"{rows}.length") == 3
    page.locator(".filter input").fill("b")
    page.locator(".filter select").select_option("*")
    assert 0 < page.evaluate(f"{rows}.length") <= 18
    plain = opened(browser, files["many"], java_script_enabled=False)
    assert plain.locator(".sortable tbody tr").count() == 18
    assert plain.locator(".sortable button").count() == 0
