"""Sections of what comes after training: registry, promotion, serving, orchestration, tracking."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from interloom.params import Section
from interloom.settings.fields import BenchmarkName, Count, Fraction, System


class RegistrationSettings(Section):
    """Names in the model registry."""

    model_name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
    """Of the composed pipeline."""
    planner_name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
    critic_name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
    adaptive_name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
    """Of the unified model."""
    timed_requests: Count
    """Benchmark requests that the finished model answers one by one, for its latency."""

    def name_of(self, system: System) -> str:
        """The model of a system that is evaluated, promoted and served."""
        return self.model_name if system == "agents" else self.adaptive_name


class BenchmarkLimits(Section):
    """What a champion must reach on one benchmark; scores are 0–100."""

    floor: Annotated[float, Field(ge=0, le=100)]
    """Least overall score, whatever the champion has."""
    max_loss: Annotated[float, Field(ge=0, le=100)]
    """How far below the champion the interval of the paired difference may reach."""


class GateSettings(Section):
    """What a champion must reach, of one system."""

    benchmarks: Annotated[dict[BenchmarkName, BenchmarkLimits], Field(min_length=1)]
    """The benchmarks that both versions must have been evaluated on."""
    min_gain: Annotated[float, Field(ge=-100, le=100)]
    """Least lower end of the interval of the mean difference over these benchmarks."""
    max_unjudged: Fraction
    """Share of a benchmark's judge calls without an answer."""
    max_images_per_request: Annotated[float, Field(gt=0)]
    """Mean over all benchmarks' requests."""
    max_median_seconds: Annotated[float, Field(gt=0)]
    """Of one request at a time, on the machine that registered the version."""
    max_p95_seconds: Annotated[float, Field(gt=0)]


class PromotionSettings(Section):
    """When a challenger becomes champion; no stage depends on it."""

    approval: Literal["gate", "human", "none"]
    """Who decides in the flow ``registration``: the gate, a person who sees what the gate says, or
    nobody (the challenger waits for ``interloom registry promote``)."""
    approval_hours: Annotated[float, Field(gt=0, le=24 * 30)]
    """How long the flow waits for that person."""
    experiment: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _-]*$")]
    """MLflow experiment with one run per decision."""
    agents: GateSettings
    adaptive: GateSettings

    def limits_of(self, system: System) -> GateSettings:
        """What the gate asks of a system's challenger."""
        return self.agents if system == "agents" else self.adaptive


class ServingSettings(Section):
    """How requests are served and what they may cost; no stage depends on it."""

    slots: Count
    """Requests in flight, and so the size of the batches."""
    queue: Count
    """Requests that may wait for a slot; one more is told to come back later."""
    gather_milliseconds: Annotated[float, Field(ge=0, le=1000)]
    """How long an idle server waits for company when a request comes in."""
    threads: Annotated[int, Field(ge=0, le=1024)]
    """CPU threads; 0 leaves the choice to torch."""
    max_attempts: Annotated[int, Field(ge=1, le=20)]
    """T_max of a request that does not say."""
    image_budget: Count
    """Images of a request that does not say, and the most that it may ask for."""
    max_steps: Count
    """A longer plan is refused."""
    max_body_bytes: Annotated[int, Field(ge=1024)]
    max_text: Count
    """Characters of a request."""
    max_images: Count
    """Pictures that a request may bring."""
    max_pixels: Annotated[int, Field(ge=4096, le=4096 * 4096)]
    """Of each of them."""
    recent: Annotated[int, Field(ge=1, le=100_000)]
    """Results that are kept in memory, for the page and for feedback."""
    drain_seconds: Annotated[float, Field(ge=0)]
    """How long requests in flight may take to end after SIGTERM."""
    follow_seconds: Annotated[float, Field(gt=0)]
    """Between two looks at the alias in the model registry."""
    keys: str
    """File with the hashes of API keys (`interloom serve-key` writes it); empty asks for none."""
    traces: Literal["full", "numbers", "off"]
    """Whether each request becomes an MLflow trace, and whether its texts and pictures do."""


class LimitSettings(Section):
    """How long a stage may take, and how often it is tried again."""

    timeout_minutes: Annotated[float, Field(gt=0)]
    """The process group of a stage that takes longer is killed."""
    retries: Annotated[int, Field(ge=0, le=20)]


class OrchestrationSettings(LimitSettings):
    """How the Prefect flow runs stages; no stage depends on it."""

    stages: dict[str, LimitSettings]
    """Limits of single stages, where they differ from those for all."""
    retry_delay_seconds: Annotated[float, Field(ge=0)]
    parallel_stages: Annotated[int, Field(ge=1, le=64)]


class TrackingSettings(Section):
    """Where runs are recorded; no stage depends on it."""

    enabled: bool
    uri: str
    """MLflow tracking URI; ``MLFLOW_TRACKING_URI`` in the environment goes first."""
    experiment: Annotated[str, Field(min_length=1)]
