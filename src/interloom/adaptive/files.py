"""Stories on disk: one Parquet row each, with its pictures inside.

The text column is what the model writes, with ``<image>`` where a picture stands; reading it back
is ``story.parse_story``, so a file holds nothing that is no story.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interloom.adaptive.story import Prompt, Story, interleave, marked, parse_story
from interloom.construct import store
from interloom.errors import InterloomError

if TYPE_CHECKING:
    import pyarrow as pa


def story_schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema(
        {
            "id": pa.string(),
            "category": pa.string(),
            "instruction": pa.string(),
            "references": pa.list_(pa.binary()),
            "mode": pa.string(),
            "text": pa.string(),
            "images": pa.list_(pa.binary()),
        }
    )


def story_row(story: Story) -> dict[str, Any]:
    prompt = story.prompt
    return {
        "id": prompt.id,
        "category": prompt.category,
        "instruction": prompt.instruction,
        "references": list(prompt.references),
        "mode": story.mode,
        "text": marked(story.segments()),
        "images": list(story.images),
    }


def story_from(row: Mapping[str, Any]) -> Story:
    """The story of a row.

    Raises:
        StoryError: its text tells none.
        ValueError: marks and pictures do not match, or a value is not allowed.
    """
    prompt = Prompt(
        id=row["id"],
        category=row["category"],
        instruction=row["instruction"],
        references=tuple(row["references"]),
    )
    return parse_story(prompt, interleave(row["text"], row["images"]))


def write_stories(stories: Iterable[Story], path: Path, about: Mapping[str, Any]) -> int:
    """Write a file whole; returns the number of stories."""
    return store.write_table(path, map(story_row, stories), story_schema(), about, group_rows=64)


def read_stories(path: Path) -> Iterator[Story]:
    """The stories of a file, in order.

    Raises:
        InterloomError: the file is missing or no Parquet.
    """
    return map(story_from, store.read_rows(path))


FEEDBACK = {"format": "stories/1", "source": "feedback"}
"""What a file of stories that people accepted says of itself."""


def read_feedback(path: Path) -> list[Story]:
    """The stories of a file that `interloom feedback export --system adaptive` wrote.

    Raises:
        InterloomError: no such file, or another one; names it and the setting.
    """
    where = f"sft_adaptive.feedback = {path}"
    if not path.is_file():
        raise InterloomError(
            f"{where}: no such file; `dvc pull {path}.dvc` brings it if DVC tracks it, and an "
            "empty name is for none"
        )
    about = store.about(path)
    if FEEDBACK.items() - about.items():
        raise InterloomError(
            f"{where}: not a file of `interloom feedback export --system adaptive`"
        )
    return list(read_stories(path))


def prompt_schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema(
        {
            "id": pa.string(),
            "category": pa.string(),
            "instruction": pa.string(),
            "references": pa.list_(pa.binary()),
        }
    )


def write_prompts(prompts: Iterable[Prompt], path: Path, about: Mapping[str, Any]) -> int:
    """Write requests without stories, for RL; returns their number."""
    rows = ({**prompt.model_dump(), "references": list(prompt.references)} for prompt in prompts)
    return store.write_table(path, rows, prompt_schema(), about, group_rows=256)


def read_prompts(path: Path) -> Iterator[Prompt]:
    """The requests of a file, in order.

    Raises:
        InterloomError: the file is missing or no Parquet.
    """
    for row in store.read_rows(path):
        yield Prompt.model_validate({**row, "references": tuple(row["references"])})
