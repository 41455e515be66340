"""The adaptive system's stages: escalation of requests, stories, whole trajectories as rollouts."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from interloom.planning.calibration import Calibration
from interloom.planning.remote import Calls, Measured, What, calls_of
from interloom.planning.training import (
    HOUR,
    Learner,
    Training,
    alone,
    answering_seconds,
    beside_the_policy,
    cache_of,
    generating,
    machine_of,
    memory_of,
    sft,
    training_seconds,
)
from interloom.settings.file import Settings


@dataclass(frozen=True)
class Stories:
    """What the adaptive system's stages go through; lengths in tokens."""

    requests: float
    """Of the escalation."""
    direct: float
    reflection: float
    multi_step: float
    """Stories of each mode."""
    rl_requests: float
    picture_tokens: float
    prompt_tokens: float
    story_pictures: float
    story_tokens: float
    """Of a story with its prompt, in the mean over the modes."""
    rollout_pictures: float
    rollout_tokens: float
    """Of a trajectory that the policy writes, its prompt apart."""

    @property
    def stories(self) -> float:
        """All modes together."""
        return self.direct + self.reflection + self.multi_step


def stories(settings: Settings, known: Calibration) -> Stories:
    """Work out the amounts.

    How many requests a file has is not known beforehand: then the stories are as many as the
    paper's.
    """
    options, figures = settings.adaptive_data, known.stories
    if options.requests == "pocket":
        requests = float(options.count)
        count = requests / figures.requests_per_story.value
    else:
        count = figures.stories.value
        requests = count * figures.requests_per_story.value
    shares = options.mix.direct, options.mix.reflection, options.mix.multi_step
    direct, reflection, multi_step = (count * share / sum(shares) for share in shares)
    side = settings.unified.grid_side
    picture = side * (side + 1) + figures.picture_frame.value
    prompt = figures.prompt.value + figures.references.value * picture
    drawn = picture + figures.evaluation.value
    steps = figures.plan_steps.value
    reflected = figures.reflection_pictures.value
    each = {
        "direct": drawn,
        "reflection": reflected * drawn + (reflected - 1) * figures.reflection.value,
        "multi_step": (1 + steps) * drawn + steps * figures.step.value,
    }
    written = (
        direct * each["direct"] + reflection * each["reflection"] + multi_step * each["multi_step"]
    )
    pictures = direct + reflection * reflected + multi_step * (1 + steps)
    rolled = figures.rollout_pictures.value
    return Stories(
        requests=requests,
        direct=direct,
        reflection=reflection,
        multi_step=multi_step,
        rl_requests=float(options.rl_count),
        picture_tokens=picture,
        prompt_tokens=prompt,
        story_pictures=pictures / count,
        story_tokens=prompt + written / count,
        rollout_pictures=rolled,
        rollout_tokens=rolled * drawn + (rolled - 1) * figures.reflection.value,
    )


@dataclass(frozen=True)
class Escalated:
    """What the escalation takes: pictures that are mended, and seconds of one card."""

    repairs: float
    seconds: float
    calls: tuple[Calls, ...]


def escalation(
    settings: Settings, known: Calibration, amounts: Stories, seen: Measured
) -> Escalated:
    """Stage ``adaptive-data``: a first try each, reflections, plans; every picture is evaluated.

    Who fails in all rounds is diagnosed, and whose instruction was too complex gets a plan.
    """
    options, figures = settings.adaptive_data, known.stories
    failing = amounts.requests - amounts.direct - amounts.reflection
    rounds = options.rounds * failing
    if options.rounds:
        rounds += (figures.reflection_pictures.value - 1) * amounts.reflection
    tries = min(figures.step_tries.value, options.step_tries)
    steps = amounts.multi_step * figures.plan_steps.value * tries
    # Evaluations of first tries, repairs and steps; reflections; diagnoses; plans.
    asked = amounts.requests + 2 * rounds + failing + amounts.multi_step + steps
    repairs = rounds + steps
    shown = 1 + figures.references.value
    work: tuple[tuple[What, float, float], ...] = (
        ("analyses", asked, shown),
        ("repairs", repairs, shown),
    )
    calls = [
        call
        for what, count, pictures in work
        for call in calls_of("adaptive-data", what, count, settings, known, seen, pictures=pictures)
    ]
    size = known.unified_model(settings.unified.model)
    seconds = answering_seconds(
        amounts.requests,
        amounts.prompt_tokens,
        amounts.picture_tokens,
        settings.unified.batch_size,
        alone(size, known),
        known,
    )
    return Escalated(repairs, seconds, tuple(calls))


def learner(stage: str, settings: Settings, known: Calibration) -> Learner:
    """The unified model."""
    options = settings.unified
    return Learner(known.unified_model(options.model), options.dtype, machine_of(stage, settings))


def sft_adaptive(
    settings: Settings, known: Calibration, amounts: Stories, seen: Measured
) -> Training:
    """Stage ``sft-adaptive``; every picture of a held-out story is evaluated."""
    options = settings.sft_adaptive
    training = sft(
        options,
        amounts.stories,
        amounts.story_tokens,
        amounts.story_tokens - amounts.prompt_tokens,
        learner("sft-adaptive", settings, known),
        known,
        batch=settings.unified.batch_size,
    )
    asked = options.evaluations * options.held_out * amounts.story_pictures
    calls = _analyses("sft-adaptive", asked, settings, known, seen)
    return Training(
        training.machine, training.parts, training.memory, training.memory_parts, tuple(calls)
    )


def grpo_adaptive(
    settings: Settings, known: Calibration, amounts: Stories, seen: Measured
) -> Training:
    """Stage ``grpo-adaptive``: the policy writes whole trajectories by ``generate``; their last
    pictures are evaluated and their texts rated, and all of that is waited for."""
    options, policy = settings.grpo_adaptive, learner("grpo-adaptive", settings, known)
    machine, batch = policy.machine, settings.unified.batch_size
    writer = generating(policy, known)
    steps = amounts.rl_requests * options.epochs / options.batch_size
    if options.max_steps:
        steps = min(steps, float(options.max_steps))
    rollouts = options.batch_size * options.group_size
    mine = rollouts / machine.processes
    prompt, answer = amounts.prompt_tokens, amounts.rollout_tokens
    writing = answering_seconds(mine, prompt, answer, batch, writer, known)
    training = training_seconds(
        options,
        mine * (prompt + answer),
        policy,
        known,
        forward_passes=int(options.kl_coefficient > 0),
    )
    held_out = (options.evaluations + 1) * options.held_out
    evaluating = answering_seconds(
        held_out / machine.processes, prompt, answer, batch, writer, known
    )
    # The last picture and the texts between pictures; held out, every picture as well.
    asked = (steps * rollouts + 2 * held_out) * amounts.rollout_pictures
    calls = _analyses("grpo-adaptive", asked, settings, known, seen)
    waiting = sum(call.hours for call in calls) * steps * rollouts / (steps * rollouts + held_out)
    parts = {
        "rollouts": steps * writing / HOUR,
        "waiting for rewards": waiting,
        "training": steps * training / HOUR,
        "held-out answers": evaluating / HOUR,
    }
    memory = memory_of(options, prompt + answer, answer, policy, known)
    memory |= beside_the_policy(options, policy)
    together = min(batch, ceil(mine))
    memory["cache of rollouts"] = together * cache_of(prompt + answer, policy.size)
    return Training(machine, parts, sum(memory.values()), memory, tuple(calls))


def _analyses(
    stage: str, count: float, settings: Settings, known: Calibration, seen: Measured
) -> list[Calls]:
    shown = 1 + known.stories.references.value
    return calls_of(stage, "analyses", count, settings, known, seen, pictures=shown)


def answering_hours(
    settings: Settings, known: Calibration, amounts: Stories, items: float
) -> float:
    """Stage ``generate-adaptive``: hours of one card on which every system answers ``items``."""
    size = known.unified_model(settings.unified.model)
    systems = len(settings.evaluate_adaptive.systems)
    seconds = answering_seconds(
        items * systems,
        amounts.prompt_tokens,
        amounts.rollout_tokens,
        settings.unified.batch_size,
        alone(size, known),
        known,
    )
    return seconds / HOUR
