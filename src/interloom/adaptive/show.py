"""``interloom show masks``: a story token by token, coloured by what the loss learns."""

from __future__ import annotations

import html
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from interloom import images
from interloom.adaptive import files
from interloom.adaptive.masking import IGNORED, Masking, mask_tokens
from interloom.adaptive.released import RESULT, Discarded, read_result
from interloom.adaptive.story import Mode, Span, Story
from interloom.construct.files import write_text
from interloom.errors import InterloomError

if TYPE_CHECKING:
    from rich.text import Text

    from interloom.backends.unified import UnifiedModel

LEARNED, CONTEXT = "#1a7f37", "#8c959f"
STYLE = """body { font: 15px/1.6 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; }
.span { margin: .4rem 0; padding: .3rem .6rem; border-left: 5px solid; border-radius: 3px; }
.learned { border-color: #1a7f37; background: #e6f4ea; } .context { border-color: #8c959f;
background: #f3f4f6; color: #57606a; } .name { font-weight: 600; display: inline-block;
min-width: 5rem; } code { border: 1px solid #d0d7de; border-radius: 3px; padding: 0 2px;
margin: 1px; display: inline-block; white-space: pre; font-size: 12px; background: #ffffffb0; }
img { height: 72px; vertical-align: middle; margin-right: .6rem; }"""


@dataclass(frozen=True)
class Shown:
    """One span of a story with its tokens, and whether they are learned."""

    span: Span
    tokens: tuple[str, ...]
    learned: bool


def shown_spans(story: Story, unified: UnifiedModel, masking: Masking) -> list[Shown]:
    """The spans of a story as the trainer sees them, in order."""
    stream = unified.stream
    masked = mask_tokens(
        story, unified.tokens, begin=[stream.bos], end=[stream.eos], masking=masking
    )
    found = []
    for number, span in enumerate(story.spans()):
        places = [i for i, belongs in enumerate(masked.spans) if belongs == number]
        found.append(
            Shown(
                span=span,
                tokens=tuple(_name(masked.input_ids[i], unified) for i in places),
                learned=all(masked.labels[i] != IGNORED for i in places),
            )
        )
    return found


def _name(token: int, unified: UnifiedModel) -> str:
    """A token's text; visual tokens as their code."""
    said = unified.stream.said([token])
    return f"▣{int(said[-8:-2])}" if said.startswith("<|visual token") else said


def to_text(shown: list[Shown]) -> Text:
    """For a terminal: learned tokens green, context grey."""
    from rich.text import Text

    text = Text()
    for one in shown:
        mark, colour = ("learned", LEARNED) if one.learned else ("context", CONTEXT)
        text.append(f"{one.span.name:>7} {mark}  ", style=f"bold {colour}")
        text.append("·".join(token.strip() or "␣" for token in one.tokens) + "\n", style=colour)
    return text


def to_html(story: Story, shown: list[Shown], masking: Masking) -> str:
    """A page of its own, pictures included."""
    title = f"{story.mode}: {story.prompt.instruction}"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style><h1>{html.escape(title)}</h1><p>Masking: {masking}. Green spans "
        f"are learned, grey ones are context.</p>{''.join(_rows(shown))}</html>\n"
    )


def _rows(shown: list[Shown]) -> Iterator[str]:
    for one in shown:
        kind = "learned" if one.learned else "context"
        content = one.span.content
        picture = ""
        if isinstance(content, bytes):
            picture = f'<img src="{images.data_url(content)}" alt="">'
        tokens = "".join(f"<code>{html.escape(token)}</code>" for token in one.tokens)
        yield (
            f'<div class="span {kind}"><span class="name">{one.span.name}</span>{picture}{tokens}'
            "</div>"
        )


def pick_story(path: Path, mode: Mode | None, index: int) -> Story:
    """A story of a Parquet file, of a ``result.json``, or of a folder of them.

    Raises:
        InterloomError: there is no such story.
    """
    if path.suffix == ".json" or (path.is_dir() and not list(path.glob("*.parquet"))):
        found = sorted(path.rglob(RESULT)) if path.is_dir() else [path]
        stories = [s for s in map(read_result, found) if not isinstance(s, Discarded)]
    else:
        stories = list(files.read_stories(path))
    chosen = [story for story in stories if mode in (None, story.mode)]
    if not 0 <= index < len(chosen):
        what = f"of the mode {mode}" if mode else "at all"
        raise InterloomError(f"{path}: {len(chosen)} stories {what}, none has the index {index}")
    return chosen[index]


def write_page(story: Story, shown: list[Shown], masking: Masking, path: Path) -> None:
    """The page as a file."""
    write_text(path, to_html(story, shown, masking))
