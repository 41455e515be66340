"""How much there is to do: requests, pictures, rows and tokens, from the settings."""

from __future__ import annotations

from dataclasses import dataclass

from interloom.planning.calibration import Calibration
from interloom.settings.file import Settings


@dataclass(frozen=True)
class Rows:
    """Sizes of the three training sets."""

    planner: float
    critic: float
    rl: float

    @classmethod
    def published(cls, calibration: Calibration) -> Rows:
        """Those of the paper's data sets."""
        said = calibration.published
        return cls(said.planner_rows.value, said.critic_rows.value, said.rl_rows.value)


@dataclass(frozen=True)
class Volumes:
    """What the data stages make, and what training and evaluation go through."""

    requests: float
    steps: float
    attempts: float
    """Pictures, and so critiques and scores, of the trajectories."""
    strong: float
    """Pictures by ``models.generator``; the others are by ``models.generator_weak``."""
    weak: float
    rows: Rows
    image_tokens: float
    """Of one picture, as a VLM sees it."""
    planner_tokens: float
    """Of one planner sample, its answer included."""
    critic_tokens: float
    """Of one critic sample, its answer included."""
    false_share: float
    """Judgments "false", after which the refined prompt is drawn and scored."""


def volumes(settings: Settings, known: Calibration, rows: Rows | None = None) -> Volumes:
    """Work out the amounts; ``rows`` go before those that the settings lead to.

    Attempts per step are bounded by ``trajectories.max_attempts``. Rows of the planner are
    ``requests · planner_data.samples_per_trajectory``, and what is rehearsed beside them. Kept
    attempts become critic rows, of which ``critic_data.sft_rl_ratio`` go to SFT for one to RL.
    """
    requests = float(settings.prompts.count)
    steps = requests * known.data.steps_per_request.value
    tries = min(known.data.attempts_per_step.value, settings.trajectories.max_attempts)
    attempts = steps * tries
    weak = attempts * settings.trajectories.weak_share
    kept = attempts * known.data.kept_attempts.value
    ratio = settings.critic_data.sft_rl_ratio
    planner = settings.planner_data
    made = Rows(
        planner=requests * planner.samples_per_trajectory
        + (planner.general_rows if planner.general else 0),
        critic=kept * ratio / (1 + ratio),
        rl=kept / (1 + ratio),
    )
    image = image_tokens(settings, known)
    tokens = known.tokens
    return Volumes(
        requests=requests,
        steps=steps,
        attempts=attempts,
        strong=attempts - weak,
        weak=weak,
        rows=rows or made,
        image_tokens=image,
        planner_tokens=tokens.planner_text.value
        + known.data.planner_images.value * image
        + tokens.planner_answer.value,
        critic_tokens=tokens.critic_text.value + 2 * image + tokens.critic_answer.value,
        false_share=1 - settings.critic_data.majority,
    )


def image_tokens(settings: Settings, known: Calibration) -> float:
    """Tokens of a generated picture: its pixels, at most ``models.max_image_pixels``."""
    pixels = min(settings.models.generator.image_size**2, settings.models.max_image_pixels)
    return pixels / known.vlm(settings.models.vlm).image_token_pixels


def image_bytes(side: int, known: Calibration) -> float:
    """Of the file of one square picture."""
    return known.data.image.value * 1e6 * (side / 1024) ** 2
