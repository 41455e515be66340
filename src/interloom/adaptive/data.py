"""Stage ``adaptive-data``: requests become stories of three modes by hierarchical escalation."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from interloom import cast
from interloom.adaptive import cast as adaptive_cast
from interloom.adaptive import files, requests
from interloom.adaptive.escalation import Escalation, Outcome, Rules
from interloom.adaptive.released import Discarded
from interloom.adaptive.story import MODES, Prompt, Story
from interloom.cache import CachedGenerator, CallCache
from interloom.construct import accounts
from interloom.construct.yields import Yield
from interloom.errors import InterloomError
from interloom.records import Thresholds
from interloom.seeding import derive_seed

if TYPE_CHECKING:
    from interloom.runner import StageRun
    from interloom.settings.data import AdaptiveDataSettings, MixSettings, ThresholdsSettings
    from interloom.settings.file import Settings

SHIPPED = Path("data/umm")


def thresholds(settings: ThresholdsSettings) -> Thresholds:
    """A section's thresholds as a record."""
    return Thresholds.model_validate(settings.model_dump())


def rules(options: AdaptiveDataSettings) -> Rules:
    """What the settings allow and how often they try."""
    return Rules(
        accepted=thresholds(options.accepted),
        step_accepted=thresholds(options.step_accepted),
        rounds=options.rounds,
        step_tries=options.step_tries,
        retries=options.retries,
        show_references=options.show_references,
    )


def wanted_prompts(options: AdaptiveDataSettings, seed: int) -> tuple[list[Prompt], list[Prompt]]:
    """The requests that the settings name: those for stories, and the last ``rl_count`` for RL.

    Raises:
        InterloomError: a file has no request beyond those for RL.
    """
    if options.requests == "pocket":
        prompts = requests.pocket_prompts(options.count + options.rl_count, seed)
    else:
        prompts = list(requests.read_prompts(Path(options.requests)))
    told = len(prompts) - options.rl_count
    if told < 1:
        raise InterloomError(
            f"{options.requests} (adaptive_data.requests) has {len(prompts)} requests, of which RL "
            f"takes {options.rl_count} (adaptive_data.rl_count)"
        )
    return prompts[:told], prompts[told:]


def mixed(stories: Sequence[Story], mix: MixSettings, seed: int) -> list[Story]:
    """As many stories of each mode as the shares allow, in their order.

    The mode that is scarcest against its share sets the scale; of the others some are left out,
    drawn by request. Modes with the share 0, and those of which there is none, set nothing.
    """
    shares = {mode: getattr(mix, mode) for mode in MODES}
    there = Counter(story.mode for story in stories)
    scales = [there[mode] / shares[mode] for mode in MODES if shares[mode] and there[mode]]
    scale = min(scales, default=0.0)
    kept: set[str] = set()
    for mode in MODES:
        mine = [story.prompt.id for story in stories if story.mode == mode]
        mine.sort(key=lambda name: derive_seed(seed, "mix", name))
        kept |= set(mine[: round(scale * shares[mode])])
    return [story for story in stories if story.prompt.id in kept]


def account(counts: Mapping[str, int], outcomes: Sequence[Outcome], kept: int) -> list[Yield]:
    """What each stage of the escalation made of what came to it, and why requests were discarded.

    What a stage did not keep goes on to the next one (``escalated``) or is discarded.
    """
    gone = Counter(o.reason for o in outcomes if isinstance(o, Discarded))
    stages = ["direct", *(f"reflection_{n}" for n in range(1, 4)), "diagnosis", "multi_step"]
    yields = []
    for stage in stages:
        came, passed = counts.get(f"{stage}.came", 0), counts.get(f"{stage}.kept", 0)
        if came:
            yields.append(Yield(stage, came, passed, {"not passed": came - passed}))
    stories = len(outcomes) - gone.total()
    yields.append(Yield("requests", len(outcomes), stories, dict(sorted(gone.items()))))
    yields.append(Yield("mix", stories, kept, {"left out": stories - kept}))
    return yields


def carry_out(
    prompts: Sequence[Prompt], settings: Settings, stage: StageRun
) -> tuple[list[Outcome], Counter[str]]:
    """Escalate requests, so many at a time; pictures of local models survive a kill."""
    options = settings.adaptive_data
    remotes = cast.remotes(settings.remote, stage)
    cache = CallCache(stage.work / "calls.sqlite")
    generator = cast.generator(settings.models.generator_named(options.generator), remotes, cache)
    analyzer = adaptive_cast.analyzer(
        options.analyzer_backend, options.analyzer_model, settings.teacher, remotes
    )
    outcomes: list[Outcome] = []
    counts: Counter[str] = Counter()
    with stage.progress(len(prompts), "escalating requests") as bar:
        baseline = _baseline(settings, stage, cache)
        for some in _batches(prompts, options.in_flight):
            escalation = Escalation(baseline, analyzer, generator, rules(options), settings.seed)
            outcomes += escalation.run(some)
            counts += escalation.counts
            bar.advance(len(some))
    cache.close()
    counts["calls"], counts["calls_known"] = cache.calls + remotes.calls, cache.hits + remotes.hits
    return outcomes, counts


def _baseline(settings: Settings, stage: StageRun, cache: CallCache) -> CachedGenerator:
    from interloom.backends.stream import Sampling
    from interloom.backends.unified import UnifiedGenerator

    options = settings.adaptive_data
    unified = adaptive_cast.unified(settings.unified, base_model(settings, stage.dep("umm")))
    sampling = Sampling(options.temperature, options.top_k)
    identity = f"{settings.unified.model_dump_json()} {sampling}"
    return CachedGenerator(UnifiedGenerator(unified, sampling), cache, identity)


def base_model(settings: Settings, shipped: Path) -> Path:
    """The model to start from: the shipped folder, or whatever else the profile names."""
    named = Path(settings.unified.model)
    return shipped if named == SHIPPED else named


def _batches(prompts: Sequence[Prompt], size: int) -> Iterator[Sequence[Prompt]]:
    return (prompts[start : start + size] for start in range(0, len(prompts), size))


def run(settings: Settings, stage: StageRun) -> None:
    """Body of the stage."""
    options = settings.adaptive_data
    if options.threads:
        # The last digits of a picture depend on the number of threads.
        import torch

        torch.set_num_threads(options.threads)
    prompts, rl = wanted_prompts(options, settings.seed)
    outcomes, counts = carry_out(prompts, settings, stage)
    stories = [outcome for outcome in outcomes if isinstance(outcome, Story)]
    chosen = mixed(stories, options.mix, settings.seed)
    if not chosen:
        why = Counter(o.reason for o in outcomes if isinstance(o, Discarded))
        raise InterloomError(f"adaptive-data: no story came of {len(outcomes)} requests: {why}")
    out = stage.out("adaptive-data")
    files.write_stories(
        chosen, out / "stories.parquet", {"format": "stories/1", "seed": settings.seed}
    )
    files.write_prompts(rl, out / "rl.parquet", {"format": "prompts/1", "seed": settings.seed})
    gone = [o for o in outcomes if isinstance(o, Discarded)]
    lines = [
        {"id": one.prompt.id, "category": one.prompt.category,
         "instruction": one.prompt.instruction, "reason": one.reason}
        for one in gone
    ]  # fmt: skip
    (out / "discarded.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    accounts.write(stage, account(counts, outcomes, len(chosen)), numbers(chosen, counts))


def numbers(stories: Sequence[Story], counts: Mapping[str, int]) -> dict[str, float | int | str]:
    """Stories and pictures by mode, root causes, failed calls."""
    found: dict[str, float | int | str] = {}
    for mode in MODES:
        mine = [story for story in stories if story.mode == mode]
        found[f"stories.{mode}"] = len(mine)
        found[f"images.{mode}"] = sum(len(story.images) for story in mine)
    causes = {name: n for name, n in sorted(counts.items()) if name.startswith("cause.")}
    calls = {name: counts.get(name, 0) for name in ("failed_calls", "calls", "calls_known")}
    return {**found, **causes, **calls}
