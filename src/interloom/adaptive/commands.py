"""Commands of the adaptive system; ``interloom.show`` puts them into their group."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def masks(
    path: Annotated[
        Path, typer.Argument(help="stories.parquet, a result.json, or a folder of them.")
    ] = Path("outputs/adaptive-data/stories.parquet"),
    mode: Annotated[
        Literal["direct", "reflection", "multi_step"] | None,
        typer.Option(help="Only stories of this mode."),
    ] = None,
    index: Annotated[int, typer.Option(help="Which of them.")] = 0,
    masking: Annotated[
        Literal["selective", "full"], typer.Option(help="Which loss mask.")
    ] = "selective",
    model: Annotated[Path, typer.Option(help="Whose tokens.")] = Path("data/umm"),
    page: Annotated[
        Path | None, typer.Option("--html", help="Write a page instead of coloured text.")
    ] = None,
) -> None:
    """Show a story token by token: what the loss learns is green, what is context is grey."""
    from rich.console import Console

    from interloom.adaptive.reasoner import add_story_tags
    from interloom.adaptive.show import pick_story, shown_spans, to_text, write_page
    from interloom.backends.unified import UnifiedModel

    story = pick_story(path, mode, index)
    unified = UnifiedModel.from_pretrained(model)
    add_story_tags(unified)
    shown = shown_spans(story, unified, masking)
    if page is not None:
        write_page(story, shown, masking, page)
        typer.echo(f"Open {page}")
        return
    Console().print(to_text(shown))
