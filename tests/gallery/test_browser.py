"""The pages of pictures in a browser: no error, no request, a map to explore, losses to choose."""

import json
import re

import pytest

from dmlbench.gallery.job import gallery_job

from ..leaderboard.browser import DARK, Browser, needs_axe, needs_browser

pytestmark = needs_browser
GROUP = "letters/tiny"


@pytest.fixture
def files(drawn, data_folder):
    gallery_job(drawn, GROUP, data_folder / "stores")
    return drawn.files.gallery(GROUP)


@pytest.fixture
def browser(tmp_path):
    return Browser(tmp_path)


def test_the_page_of_a_loss_opens_and_its_links_lead_somewhere(files, browser, drawn):
    page = files.page("proxy_anchor")
    document = browser.open(page)  # no script may print or fail
    assert document.count('class="example"') > 5
    asked = "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    assert [name for name in browser.ask(page, asked) if not name.startswith("data:")] == []
    links = re.findall(r'<a href="([^"#]+)"', document)
    places = {(page.parent / link).resolve() for link in links}
    cell = drawn.files.leaderboard / "cells/letters/tiny/proxy_anchor.html"
    assert places == {path.resolve() for path in (files.differences, cell, drawn.files.page)}


def test_all_thumbnails_of_a_page_are_parts_of_its_sheet(files, browser):
    script = """
      const address = getComputedStyle(document.documentElement).getPropertyValue("--sheet");
      const image = new Image();
      image.src = address.trim().slice(5, -2);
      await image.decode();
      const side = parseInt(getComputedStyle(document.documentElement).getPropertyValue("--side"));
      const places = [...document.querySelectorAll(".picture b")].map((of) =>
        [Number(of.style.getPropertyValue("--x")), Number(of.style.getPropertyValue("--y"))]);
      return [side, image.width, image.height, Math.max(...places.map(([x]) => x)),
        Math.max(...places.map(([, y]) => y))];
    """
    for page in (files.page("proxy_anchor"), files.differences):
        side, width, height, right, bottom = browser.ask(page, script)
        assert side == 80
        assert (right + 1) * side <= width
        assert (bottom + 1) * side == height


def test_the_map_shows_points_and_the_image_under_the_pointer(files, browser):
    script = """
      const canvas = document.querySelector("#map");
      draw();
      const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
      let drawn = 0;
      for (let place = 3; place < pixels.length; place += 4) drawn += pixels[place] > 0;
      const [x, y] = place(5);
      const frame = canvas.getBoundingClientRect();
      const at = { clientX: frame.left + x, clientY: frame.top + y };
      canvas.dispatchEvent(new PointerEvent("pointermove", at));
      const shown = document.querySelector(".hovered");
      return [drawn, shown.hidden, shown.textContent, data.classes[labels[nearest(x, y)]],
        shown.firstElementChild.style.backgroundImage];
    """
    drawn, is_hidden, text, name, picture = browser.ask(files.page("proxy_anchor"), script)
    assert drawn > 500
    assert not is_hidden
    assert text.startswith(name)
    assert picture == 'url("thumbnails.webp")'


def test_the_keyboard_moves_and_zooms_the_map(files, browser):
    script = """
      const canvas = document.querySelector("#map"), seen = [];
      for (const key of ["ArrowRight", "+", "0"]) {
        canvas.dispatchEvent(new KeyboardEvent("keydown", { key }));
        seen.push([view.x, view.zoom]);
      }
      return seen;
    """
    moved, zoomed, reset = browser.ask(files.page("proxy_anchor"), script)
    assert moved[0] > 0.5
    assert zoomed[1] > 1
    assert reset == [0.5, 1]


def test_any_two_losses_can_be_compared_and_the_address_remembers_them(files, browser):
    script = """
      const of = (id) => document.querySelectorAll(`#${id} .example`).length;
      const said = document.querySelector("#sums").textContent;
      return [location.hash, said, of("a-wins"), of("b-wins"),
        document.querySelector("#bars").childElementCount];
    """
    address, said, first, second, bars = browser.ask(files.differences, script)
    assert address == "#first=normalized_softmax&second=proxy_anchor"
    numbers = [int(number) for number in re.findall(r"\d+", said)]
    assert numbers[0] + numbers[1] <= numbers[2]
    assert bars > 0
    turned = browser.ask(files.differences, script, "#first=proxy_anchor&second=normalized_softmax")
    assert turned[2:4] == [second, first]
    assert min(first, second) > 0
    nonsense = browser.ask(files.differences, script, "#first=none&second=")
    assert nonsense[0] == address


@needs_axe
def test_no_page_of_pictures_has_a_problem_of_accessibility_light_or_dark(files, browser):
    found = {
        f"{page.name} {' '.join(options)}": browser.find_problems(page, *options)
        for page in (files.page("proxy_anchor"), files.differences)
        for options in ((), (DARK,))
    }
    assert not any(found.values()), json.dumps(found, indent=2)
