"""``interloom review``: one story at a time, accept or reject. For this machine alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from fastapi import FastAPI, Form, HTTPException
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, PackageLoader

from interloom import images
from interloom.adaptive import reviews
from interloom.adaptive.story import Story

PAGES = Environment(loader=PackageLoader("interloom.adaptive", "pages"), autoescape=True)


def make_app(stories: Sequence[Story], decisions: Path, by: str) -> FastAPI:
    """The page for one reviewer; every decision is appended to the file at once."""
    app = FastAPI(title="interloom review", docs_url=None, redoc_url=None, openapi_url=None)
    by_key = {reviews.key_of(story): story for story in stories}

    def decided() -> set[str]:
        known = reviews.read(decisions) if decisions.exists() else []
        return {one.story for one in known if one.by == by} & by_key.keys()

    @app.get("/", response_class=HTMLResponse)
    def page() -> str:
        done = decided()
        key = next((key for key in by_key if key not in done), "")
        story = by_key.get(key)
        return PAGES.get_template("review.html").render(
            by=by,
            done=len(done),
            total=len(by_key),
            key=key,
            story=story,
            references=[images.data_url(one) for one in story.prompt.references] if story else [],
            parts=_parts(story) if story else [],
        )

    @app.post("/decide")
    def decide(
        story: Annotated[str, Form()],
        decision: Annotated[Literal["accept", "reject"], Form()],
        note: Annotated[str, Form(max_length=500)] = "",
    ) -> RedirectResponse:
        if story not in by_key:
            raise HTTPException(404, "no such story")
        reviews.decide(decisions, by_key[story], by, decision == "accept", note)
        return RedirectResponse("/", status_code=303)

    return app


def _parts(story: Story) -> list[tuple[str, str]]:
    return [
        ("image", images.data_url(part)) if isinstance(part, bytes) else ("text", part)
        for part in story.segments()
    ]
