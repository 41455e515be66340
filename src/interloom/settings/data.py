"""Sections of the stages that make and check data, of both systems."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from interloom.params import Section
from interloom.settings.fields import Count, Fraction, GeneratorName, Score10


class PromptsSettings(Section):
    """How many requests are written, and from what."""

    edition: Literal["pocket", "taxonomy"]
    """Requests that the pocket world can draw, or the paper's full taxonomy."""
    count: Count
    expand: Annotated[int, Field(ge=0, le=200)]
    """Entries that the teacher adds to each vocabulary bank of the taxonomy."""
    pictures: str
    """Folder of pictures that requests of the taxonomy come with; empty for text only. Stages look
    at its name alone: pictures that changed need a folder of another name."""
    picture_share: Annotated[float, Field(ge=0, le=0.5)]
    """Share of the taxonomy's requests that come with pictures, if there are any."""


class TrajectoriesSettings(Section):
    """The closed loop that makes the raw data."""

    max_attempts: Annotated[int, Field(ge=1, le=20)]
    """T_max of the paper."""
    batch_size: Count
    """Requests in flight, and so the most images per generator call. Where one role is remote and
    another one local, two loops of this size take turns."""
    shard_rows: Count
    weak_share: Fraction
    """Share of the requests that the weak generator carries out."""
    threads: Annotated[int, Field(ge=0, le=1024)]
    """CPU threads; 0 leaves the choice to torch, and pictures then differ between machines."""
    runner: Annotated[str, Field(pattern=r"^(local|dask:[1-9]\d*|(tcp|tls)://\S+)$")]
    """``local``: in the stage's own process. ``dask:N``: shard by shard as Prefect tasks on N Dask
    workers of this machine; ``tcp://HOST:PORT``: on those of a Dask scheduler."""
    shown: Annotated[int, Field(ge=0, le=1000)]
    """Trajectories of all categories and outcomes that MLflow shows, as a page and as traces."""


class CriticDataSettings(Section):
    """Filtering, SFT/RL split by score variance, and balancing of judgments."""

    sft_rl_ratio: Annotated[float, Field(gt=0, le=100)]
    filter: bool
    """Drop steps that fall, degrade, stay low or stand still; off for the "unfiltered" ablation."""
    balance: bool
    """Resample true and false judgments; off for the "unbalanced" ablation."""
    low: Score10
    """A step that never scores above this is persistently low."""
    high: Score10
    """A step that never scores below this is stable."""
    tolerance: Score10
    """A change of score up to this is no change."""
    majority: Annotated[float, Field(ge=0.5, lt=1)]
    """Largest share of either judgment after balancing."""
    feedback: str
    """File of `interloom feedback export`; empty for none. The stage looks at its name alone, which
    is made of what is in the file."""


class PlannerDataSettings(Section):
    """Self-synthesised planner data: plans truncated at a random step."""

    samples_per_trajectory: Count
    interleaved: str
    """File of an open data set in CoMM's form, its pictures in ``images`` beside it; empty for
    none. The stage looks at its name alone: what changed needs another name."""
    general: str
    """General questions that the planner rehearses, so that it does not forget what plans never ask
    for: ``pocket``, or a JSONL file of ``question`` and ``answer``; empty for none. The stage looks
    at the name alone."""
    general_rows: Count
    """Of them at most."""


class ValidationSettings(Section):
    """What the gate allows."""

    min_positive_judgments: Fraction
    max_positive_judgments: Fraction
    ratio_tolerance: Fraction
    """How far the SFT:RL ratio may be from the wanted one, relative."""


class ThresholdsSettings(Section):
    """Least score per axis, 1 to 5, with which a picture is accepted."""

    instruction: Annotated[int, Field(ge=1, le=5)]
    consistency: Annotated[int, Field(ge=1, le=5)]
    quality: Annotated[int, Field(ge=1, le=5)]
    knowledge: Annotated[int, Field(ge=1, le=5)]


class MixSettings(Section):
    """Shares of the modes among the stories, relative to each other; 0 leaves a mode out."""

    direct: Annotated[float, Field(ge=0)]
    reflection: Annotated[float, Field(ge=0)]
    multi_step: Annotated[float, Field(ge=0)]


class AdaptiveDataSettings(Section):
    """Hierarchical escalation: requests to stories of three modes."""

    requests: str
    """``pocket``, or a JSONL file with ``instruction`` and ``images``, of which the stage looks at
    the name alone."""
    count: Count
    """Requests of the pocket world that are to become stories; a file is used up."""
    rl_count: Count
    """Further requests, which are kept for RL; the last ones of a file."""
    in_flight: Count
    """Requests that are carried out together."""
    analyzer_backend: Literal["pocket", "gemini", "openai"]
    analyzer_model: str
    """Temperature and limits of a remote one are those of ``teacher``."""
    generator: GeneratorName
    """Which of the profile's generators mends pictures and carries out sub-steps."""
    show_references: bool
    """Whether it sees all of a request's pictures, or only the one that it edits."""
    temperature: Annotated[float, Field(ge=0, le=5)]
    """Of the visual tokens of first tries."""
    top_k: Annotated[int, Field(ge=0)]
    accepted: ThresholdsSettings
    step_accepted: ThresholdsSettings
    rounds: Annotated[int, Field(ge=0, le=3)]
    step_tries: Annotated[int, Field(ge=1, le=20)]
    retries: Annotated[int, Field(ge=0, le=20)]
    """Repeats of a failed call before its request is discarded."""
    mix: MixSettings
    threads: Annotated[int, Field(ge=0, le=1024)]
    """CPU threads; 0 leaves the choice to torch."""
