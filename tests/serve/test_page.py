"""The page, clicked through in Chromium."""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import expect
from served import TEXT, Gate, Gated, pipeline
from taught_umm import ANALYSIS, MULTI_STEP, REFLECTION, REPAIR, STEP_TEXTS

from interloom import images
from interloom.pocket.render import render
from interloom.pocket.scene import Scene, Sprite
from interloom.serve import guard
from interloom.serve.reasoner import Reasoner

CONTRAST = """() => {
    const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b]
        .map((part) => part / 255)
        .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
        .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0);
    const ratio = (a, b) => {
        const [more, less] = [light(a), light(b)].sort((x, y) => y - x);
        return (more + 0.05) / (less + 0.05);
    };
    const behind = (one) => {
        for (let at = one; at; at = at.parentElement) {
            const found = parts(getComputedStyle(at).backgroundColor);
            if (found.length === 3 || found[3] === 1) return found;
        }
        return [255, 255, 255];
    };
    const weak = [];
    for (const one of document.querySelectorAll("body *")) {
        if (!one.checkVisibility()) continue;
        const style = getComputedStyle(one);
        const worded = [...one.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
        if (worded && ratio(parts(style.color), behind(one)) < 4.5) weak.push(one.outerHTML);
        const control = one.matches("button:not(.main), input:not(#files), select, textarea");
        if (control && ratio(parts(style.borderTopColor), behind(one.parentElement)) < 3)
            weak.push(`edge of ${one.outerHTML}`);
    }
    return weak;
}"""
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser) -> Iterator:
    """A page at phone width; an error of its script fails the test."""
    context = browser.new_context(viewport={"width": 360, "height": 740}, accept_downloads=True)
    context.set_default_timeout(20_000)
    made = context.new_page()
    errors: list[str] = []
    made.on("pageerror", lambda error: errors.append(str(error)))
    made.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    made.errors = errors
    yield made
    context.close()
    # A refusal by the server is told by the browser too.
    assert not [error for error in errors if "the server responded with" not in error]


def make(page, text: str = TEXT) -> None:
    page.get_by_label("What should be drawn").fill(text)
    page.get_by_role("button", name="Make the sequence").click()


def test_a_sequence_is_made_watched_judged_and_downloaded(start, page, tmp_path: Path):
    parts = pipeline(faults=0.6)
    gate = parts.generators["renderer"]
    assert isinstance(gate, Gate)
    gate.open.clear()
    at = start(parts, traces=f"sqlite:///{tmp_path / 'mlflow.db'}")
    page.goto(at.url)
    page.get_by_text("pocket, version 1").wait_for()
    assert page.get_by_text("None yet.").is_visible()
    page.get_by_text("Limits and seed").click()
    page.get_by_label("Seed").fill("3")
    make(page)
    # The plan is there before the first picture is.
    page.get_by_role("heading", name="Step 2").wait_for()
    page.get_by_text("being drawn").wait_for()
    assert page.locator("figure img").count() == 0
    gate.open.set()
    page.get_by_text(re.compile(r"Done: \d+ pictures")).wait_for()
    assert page.locator("figure img").count() == 2
    page.locator(".tries summary").first.click()
    tries = page.locator(".step").first.locator(".tries li")
    assert tries.count() >= 2
    assert "sent back by the critic" in tries.first.inner_text()
    assert "accepted by the critic" in tries.last.inner_text()
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= 360, f"{width} pixels are wider than a phone"

    first = page.locator(".step").first
    first.get_by_role("button", name="Accept").click()
    first.get_by_text("Kept.").wait_for(timeout=60_000)
    assert first.get_by_role("button", name="Accept").get_attribute("aria-pressed") == "true"
    second = page.locator(".step").nth(1)
    second.get_by_role("button", name="Correct").click()
    second.get_by_label("What should be tried instead?").fill("put a blue cup at the center")
    page.keyboard.press("Enter")
    second.get_by_text("Correction kept.").wait_for()

    for name, ending in (("Download as a page", "html"), ("Download as a ZIP", "zip")):
        with page.expect_download() as download:
            page.get_by_role("button", name=name).click()
        download.value.save_as(tmp_path / f"sequence.{ending}")
    assert (tmp_path / "sequence.html").read_text().count("data:image/png") == 2
    with zipfile.ZipFile(tmp_path / "sequence.zip") as file:
        assert "step-02.png" in file.namelist()

    page.reload()
    page.locator("#recent button").first.click()
    page.get_by_text(re.compile(r"Done: \d+ pictures")).wait_for()
    assert page.locator("figure img").count() == 2
    assert page.locator(".tries").count() == 2


def test_a_unified_models_story_unfolds(start, page, reasoner: Reasoner, tmp_path: Path):
    gate = Gated(reasoner.reasoner)
    served = replace(reasoner, reasoner=gate)
    at = start(served, traces=f"sqlite:///{tmp_path / 'mlflow.db'}")
    page.goto(at.url)
    page.get_by_text("story, version 1").wait_for()
    page.get_by_text("Limits and seed").click()
    assert page.get_by_label("Price of going on").is_visible()
    assert not page.get_by_label("Tries per step").is_visible()
    assert not page.get_by_label("Generator").is_visible()
    make(page, MULTI_STEP)
    page.get_by_role("heading", name="Step 1").wait_for()
    page.get_by_text("being drawn").wait_for()
    assert page.locator("figure img").count() == 0 and not page.locator("#mode").is_visible()
    gate.open.set()
    page.get_by_text("Done: 3 pictures").wait_for()
    page.get_by_text("Mode: multi-step, worked out in sub-steps.").wait_for()
    assert [one.inner_text() for one in page.locator(".step .text").all()] == [
        MULTI_STEP,
        *STEP_TEXTS,
    ]
    assert page.locator("figure img").count() == 3
    states = [one.inner_text() for one in page.locator(".step .state").all()]
    assert states == [
        "✗ sent back by the model itself",
        *["✓ accepted by the model itself"] * 2,
    ]
    last = page.locator(".step").last
    last.get_by_role("button", name="Accept").click()
    last.get_by_text("Kept.").wait_for(timeout=60_000)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.reload()
    page.locator("#recent button").last.click()
    page.get_by_text("Done: 3 pictures").wait_for()
    assert page.get_by_text("Mode: multi-step").is_visible()
    assert page.locator("figure img").count() == 3 and page.locator(".tries").count() == 3

    # A reflection: why the first picture failed, and what is to be done about it.
    make(page, REFLECTION)
    page.get_by_text("Mode: reflection, looked at, and mended.").wait_for()
    page.get_by_text("Done: 2 pictures").wait_for()
    assert page.locator(".step").count() == 1
    page.locator(".tries summary").first.click()
    first, second = page.locator(".tries li").all()
    first.get_by_text("Prompt and reasoning").click()
    assert ANALYSIS in first.inner_text()
    assert f"To be tried next: {REPAIR}" in first.inner_text()
    second.get_by_text("Prompt and reasoning").click()
    assert f"Prompt: {REPAIR}" in second.inner_text()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download as a ZIP").click()
    download.value.save_as(tmp_path / "story.zip")
    with zipfile.ZipFile(tmp_path / "story.zip") as file:
        assert "step-01.png" in file.namelist()


def test_budgets_of_a_unified_model(start, page, reasoner: Reasoner):
    at = start(reasoner)
    page.goto(at.url)
    page.get_by_text("story, version 1").wait_for()
    page.get_by_text("Limits and seed").click()
    page.get_by_label("Pictures in all").fill("1")
    make(page, REFLECTION)
    page.get_by_text("The picture budget is used up: 1 picture").wait_for()
    page.get_by_label("Pictures in all").fill("")
    page.get_by_label("Price of going on").fill("50")
    make(page, MULTI_STEP)
    page.get_by_text("Mode: direct, drawn at once.").wait_for()
    page.get_by_text("Done: 1 picture,").wait_for()


def test_pictures_are_added_dropped_and_gone_on_from(start, page, tmp_path: Path):
    at = start()
    page.goto(at.url)
    sun = tmp_path / "sun.png"
    sun.write_bytes(images.to_png(render(Scene.of({0: Sprite("red", "sun")}, "day"))))
    page.locator("#files").set_input_files([str(sun), str(sun)])
    page.get_by_role("button", name="Remove sun.png").last.click()
    assert page.locator("#pictures li").count() == 1
    page.evaluate(
        """() => {
            const data = new DataTransfer();
            data.items.add(new File(["no picture"], "a.txt", {type: "text/plain"}));
            const drop = new DragEvent("drop", {dataTransfer: data, bubbles: true});
            document.getElementById("drop").dispatchEvent(drop);
        }"""
    )
    page.get_by_text("Only PNG, JPEG and WebP").wait_for()
    page.evaluate(
        """(bytes) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "b.png", {type: "image/png"}));
            const drop = new DragEvent("drop", {dataTransfer: data, bubbles: true});
            document.getElementById("drop").dispatchEvent(drop);
        }""",
        list(sun.read_bytes()),
    )
    page.get_by_role("button", name="Remove b.png").click()
    make(page, "add a blue cup at the center")
    page.get_by_text("Done: 1 picture,").wait_for()
    assert page.get_by_role("heading", name="Step 2").is_visible()


def test_refusals_are_told_and_requests_stopped(start, page):
    parts = pipeline()
    gate = parts.generators["renderer"]
    assert isinstance(gate, Gate)
    at = start(parts)
    page.goto(at.url)
    make(page, "frobnicate the quux")
    page.get_by_role("alert").get_by_text("planner: ").wait_for()
    gate.open.clear()
    make(page)
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("Stopped.").wait_for()
    gate.open.set()
    make(page)
    page.get_by_text(re.compile("Done:")).wait_for()
    assert page.get_by_role("alert").inner_text() == ""


def test_a_key_is_asked_for(start, page, tmp_path: Path):
    key = guard.add_key(tmp_path / "keys.json", "ann", 0)
    at = start(keys=tmp_path / "keys.json")
    page.goto(at.url)
    page.get_by_label("API key").fill(key)
    page.keyboard.press("Tab")
    page.get_by_text("pocket, version 1").wait_for()
    make(page)
    page.get_by_text(re.compile("Done:")).wait_for()


def test_keyboard_alone(start, page):
    at = start()
    page.goto(at.url)
    page.get_by_text("pocket, version 1").wait_for()
    seen: list[str] = []
    for _ in range(12):
        page.keyboard.press("Tab")
        focused = "document.activeElement.id || document.activeElement.textContent.trim()"
        seen.append(page.evaluate(focused))
        if seen[-1] == "text":
            page.keyboard.type(TEXT)
        if seen[-1] == "start":
            page.keyboard.press("Enter")
            break
    assert seen[:2] == ["text", "files"]
    page.get_by_text(re.compile("Done:")).wait_for()
    # With a sequence there is a short way to it, past the form.
    page.reload()
    page.locator("#recent button").first.press("Enter")
    page.get_by_text(re.compile("Done:")).wait_for()
    assert page.evaluate("document.activeElement.id") == "sequence"
    page.locator("#skip").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('#sequence') !== null")


def test_every_control_has_a_name(start, page):
    at = start()
    page.goto(at.url)
    make(page)
    page.get_by_text(re.compile("Done:")).wait_for()
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, textarea, img, section")]
            .filter((one) => !one.closest("[hidden]") && !one.closest("#recent"))
            .filter((one) => !(one.textContent.trim() || one.ariaLabel || one.alt ||
                one.labels?.length || one.getAttribute("aria-labelledby")))
            .map((one) => one.outerHTML)"""
    )
    assert nameless == []
    assert page.get_by_role("status").first.is_visible()
    assert page.locator("html").get_attribute("lang") == "en"


def test_what_a_screen_reader_is_told(start, page):
    at = start()
    page.goto(at.url)
    make(page)
    page.get_by_text(re.compile("Done:")).wait_for()
    expect(page.locator("main")).to_match_aria_snapshot(
        """
        - main:
          - form "Request":
            - textbox "What should be drawn, step by step?"
            - button "Add pictures"
            - button "Make the sequence"
          - status: /Done.*2 pictures/
          - region "Sequence":
            - heading "Sequence" [level=2]
            - list:
              - listitem:
                - heading /Step 1/ [level=3]
                - figure:
                  - img /Step 1.*red circle at the top left/
                - paragraph: /accepted by the critic/
                - group "Feedback on step 1":
                  - button "Accept"
                  - button "Reject"
                  - button /Correct/
              - listitem:
                - heading /Step 2/ [level=3]
            - button "Download as a page"
          - region "Recent results":
            - list:
              - listitem:
                - button /red circle/
        """
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_and_edges_stand_out(start, page, scheme: str):
    """WCAG 2.2 AA: 4.5 for texts, 3 for the edges of controls; targets of 44 pixels; no sideways
    scrolling at 320 pixels."""
    at = start()
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 320, "height": 640})
    page.goto(at.url)
    make(page)
    page.get_by_text(re.compile("Done:")).wait_for()
    page.get_by_text("Limits and seed").click()
    page.locator(".tries summary").first.click()
    page.locator(".correct").first.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    weak = page.evaluate(CONTRAST)
    assert weak == [], weak
    small = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, textarea, summary")]
            .filter((one) => one.checkVisibility() && one.id !== "files")
            .filter((one) => !one.closest(".tries li"))
            .filter((one) => one.getBoundingClientRect().height < 44)
            .map((one) => one.outerHTML)"""
    )
    assert small == []
