"""The page, clicked through in Chromium."""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from served import TEXT, Gate, pipeline

from interloom import images
from interloom.pocket.render import render
from interloom.pocket.scene import Scene, Sprite
from interloom.serve import guard

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
    assert seen[:3] == ["Skip to the sequence", "text", "files"]
    page.get_by_text(re.compile("Done:")).wait_for()


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
