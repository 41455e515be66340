"""The loop that all miniatures are trained with: seeded, resumable, averaged, one curve.

Progress is counted in steps, never in seconds, so that a seed gives the same weights however busy
the machine is (up to the floating-point order of the thread count).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from interloom.errors import InterloomError

Metrics = Mapping[str, float]
StepFunction = Callable[[int, np.random.Generator], tuple[torch.Tensor, Metrics]]
Report = Callable[[int, Metrics], None]


@dataclass(frozen=True)
class Schedule:
    """AdamW with linear warm-up, a flat part and a cosine down to ``floor`` × the peak."""

    steps: int
    learning_rate: float
    warmup: int = 100
    flat: float = 0.4
    floor: float = 0.02
    weight_decay: float = 0.01
    clip: float = 1.0
    average: float = 0.998
    """Decay of the exponential moving average of the weights."""

    def scaled(self, factor: float) -> Schedule:
        """The same with ``factor`` times the steps."""
        return replace(self, steps=max(12, round(self.steps * factor)))

    def rate(self, step: int) -> float:
        """Learning rate at a step.

        >>> Schedule(100, 1.0, warmup=10, flat=0.5).rate(0)
        0.1
        """
        warm = min(1.0, (step + 1) / self.warmup)
        progress = max(0.0, (step / self.steps - self.flat) / (1 - self.flat))
        fall = 0.5 * (1 + math.cos(math.pi * progress))
        return self.learning_rate * warm * (self.floor + (1 - self.floor) * fall)


class Average:
    """Exponential moving average of a model's parameters, swapped in to evaluate and save."""

    def __init__(self, parameters: list[nn.Parameter], decay: float) -> None:
        self.parameters, self.decay = parameters, decay
        self.values = [p.detach().clone() for p in parameters]

    def update(self, step: int) -> None:
        decay = min(self.decay, (step + 1) / (step + 10))
        torch._foreach_lerp_(self.values, [p.data for p in self.parameters], 1 - decay)

    def swap(self) -> None:
        for parameter, value in zip(self.parameters, self.values, strict=True):
            held = parameter.data.clone()
            parameter.data.copy_(value)
            value.copy_(held)


def train(
    name: str,
    modules: Mapping[str, nn.Module],
    step_function: StepFunction,
    schedule: Schedule,
    *,
    work: Path,
    seed: int,
    report: Report,
    report_every: int = 100,
    checkpoint_every: int = 500,
    on_step: Callable[[int, Average], None] | None = None,
    mixed: bool = False,
) -> None:
    """Train ``modules`` in place; afterwards they hold the averaged weights.

    A killed run continues from ``work/<name>.pt`` with the same random state; a checkpoint of a
    run with another seed or schedule is refused (``InterloomError``). ``step_function``
    gets the step number and the generator to draw data from, and returns the loss and what to
    report; ``on_step`` runs after every step (for snapshots on the way). ``mixed`` computes the
    forward pass in bfloat16 where that is safe.
    """
    trained = [m for m in modules.values()]
    parameters = [p for module in trained for p in module.parameters() if p.requires_grad]
    decayed = [p for p in parameters if p.ndim >= 2]
    plain = [p for p in parameters if p.ndim < 2]
    groups = [
        {"params": decayed, "weight_decay": schedule.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=schedule.learning_rate, betas=(0.9, 0.98))
    average = Average(parameters, schedule.average)
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    work.mkdir(parents=True, exist_ok=True)
    checkpoint = work / f"{name}.pt"
    run = {"seed": seed, **asdict(schedule)}
    first = 0
    if checkpoint.exists():
        state = _load(checkpoint, run)
        for key, module in modules.items():
            module.load_state_dict(state["modules"][key])
        optimizer.load_state_dict(state["optimizer"])
        average.values = state["average"]
        rng.bit_generator.state = state["numpy"]
        torch.set_rng_state(state["torch"])
        first = state["step"]
    sums: dict[str, float] = {}
    counted = 0
    bar = tqdm(
        range(first, schedule.steps), name, initial=first, total=schedule.steps, mininterval=5
    )
    for step in bar:
        for module in trained:
            module.train()
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step)
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss, metrics = step_function(step, rng)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, schedule.clip)
        optimizer.step()
        average.update(step)
        counted += 1
        for key, value in {"loss": loss.item(), "gradient_norm": norm.item(), **metrics}.items():
            sums[key] = sums.get(key, 0.0) + float(value)
        done = step + 1
        if done % report_every == 0 or done == schedule.steps:
            means = {key: value / counted for key, value in sums.items()}
            report(done, {**means, "learning_rate": schedule.rate(step)})
            bar.set_postfix({key: f"{value:.4g}" for key, value in means.items()}, refresh=False)
            sums, counted = {}, 0
        if done % checkpoint_every == 0 or done == schedule.steps:
            state = {
                "modules": {key: module.state_dict() for key, module in modules.items()},
                "optimizer": optimizer.state_dict(),
                "average": average.values,
                "numpy": rng.bit_generator.state,
                "torch": torch.get_rng_state(),
                "step": done,
                "run": run,
            }
            _save(state, checkpoint)
        if on_step:
            on_step(done, average)
    average.swap()
    for module in trained:
        module.eval()


def _save(state: Mapping[str, object], checkpoint: Path) -> None:
    aside = checkpoint.with_suffix(".part")
    torch.save(state, aside)
    aside.replace(checkpoint)


def _load(checkpoint: Path, run: Mapping[str, object]) -> dict[str, Any]:
    """A checkpoint of this very run.

    Raises:
        InterloomError: it is of a run with another seed or schedule.
    """
    state = torch.load(checkpoint, weights_only=False)
    other = {key: value for key, value in state["run"].items() if run.get(key) != value}
    if other:
        said = ", ".join(f"{key} {value}, not {run.get(key)}" for key, value in other.items())
        raise InterloomError(
            f"{checkpoint} is of another run ({said}): choose another --work, or remove it"
        )
    return state
