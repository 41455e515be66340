"""The loop that all miniatures are trained with: seeded, resumable, averaged, one curve.

Progress is counted in steps, never in seconds, so that a seed gives the same weights however busy
the machine is (up to the floating-point order of the thread count).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from interloom.errors import InterloomError

Metrics = Mapping[str, float | torch.Tensor]
StepFunction = Callable[[int, np.random.Generator], tuple[torch.Tensor, Metrics]]
T = TypeVar("T")
Report = Callable[[int, Mapping[str, float]], None]


class Ahead(Dataset[T]):
    """What the steps of a training need, made ahead by ``workers`` processes (0: when asked for).

    ``make(step)`` must depend on nothing but the step, so that the number of processes changes
    nothing, nor does a run that was killed and goes on.
    """

    def __init__(self, make: Callable[[int], T], steps: int, workers: int) -> None:
        self.make, self.steps, self.workers = make, steps, workers
        self.items: Iterator[T] | None = None

    def __getitem__(self, step: int) -> T:
        return self.make(step)

    def at(self, step: int) -> T:
        """What a step needs; steps are asked for one after another, from any on."""
        if not self.workers:
            return self.make(step)
        if self.items is None:
            # Forked, so that what is made from (pictures, a tokenizer) is not copied.
            loader = DataLoader(
                self, batch_size=None, sampler=range(step, self.steps), num_workers=self.workers,
                multiprocessing_context="fork", prefetch_factor=4,
            )  # fmt: skip
            self.items = iter(loader)
        item = next(self.items)
        if step == self.steps - 1:
            self.items = None  # ends the processes
        return item


@dataclass(frozen=True)
class Machine:
    """What a training runs on. Any draws the same lessons; on a GPU the pictures' noise differs."""

    device: str = "cpu"
    workers: int = 0
    """Processes that make ready what the next steps need."""


HERE = Machine()


def prefixed(report: Report, prefix: str) -> Report:
    """The same with ``prefix/`` before every figure's name."""
    return lambda step, metrics: report(
        step, {f"{prefix}/{key}": value for key, value in metrics.items()}
    )


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, a flat part and a cosine down to ``floor`` × the peak.

    AdamW trains everything at ``learning_rate``; where ``matrix_rate`` is given, Muon (Jordan et
    al., 2024) trains the hidden matrices at that peak instead.
    """

    steps: int
    learning_rate: float
    matrix_rate: float | None = None
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

    def share(self, step: int) -> float:
        """The share of the peak learning rate at a step.

        >>> Schedule(100, 2e-3, warmup=10, flat=0.5).share(0)
        0.1
        """
        warm = min(1.0, (step + 1) / self.warmup)
        progress = max(0.0, (step / self.steps - self.flat) / (1 - self.flat))
        fall = 0.5 * (1 + math.cos(math.pi * progress))
        return warm * (self.floor + (1 - self.floor) * fall)


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


class Optimizers:
    """AdamW; beside it Muon for the hidden matrices, where the schedule has a rate for them."""

    def __init__(self, modules: Sequence[nn.Module], schedule: Schedule) -> None:
        self.schedule = schedule
        decayed, plain, hidden = [], [], []
        for module in modules:
            embeddings = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
            for parameter in filter(lambda p: p.requires_grad, module.parameters()):
                matrix = parameter.ndim == 2 and id(parameter) not in embeddings
                if parameter.ndim < 2:
                    plain.append(parameter)
                elif matrix and schedule.matrix_rate:
                    hidden.append(parameter)
                else:
                    decayed.append(parameter)
        self.parameters = [*decayed, *plain, *hidden]
        decay, peak = schedule.weight_decay, schedule.learning_rate
        groups = [
            {"params": decayed, "weight_decay": decay, "peak": peak},
            {"params": plain, "weight_decay": 0.0, "peak": peak},
        ]
        self.all: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.98))
        ]
        if hidden:
            group = {"params": hidden, "peak": schedule.matrix_rate}
            self.all.append(torch.optim.Muon([group], weight_decay=decay))

    def step(self, loss: torch.Tensor, step: int) -> torch.Tensor:
        """Go down the gradient of ``loss``; its norm before it was clipped."""
        share = self.schedule.share(step)
        for optimizer in self.all:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * share
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, self.schedule.clip)
        for optimizer in self.all:
            optimizer.step()
        return norm

    def state(self) -> list[dict[str, Any]]:
        return [optimizer.state_dict() for optimizer in self.all]

    def load(self, state: list[dict[str, Any]]) -> None:
        for optimizer, held in zip(self.all, state, strict=True):
            optimizer.load_state_dict(held)


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
    batch: int | None = None,
) -> None:
    """Train ``modules`` in place; afterwards they hold the averaged weights.

    A killed run continues from ``work/<name>.pt`` with the same random state; a checkpoint of a
    run with another seed, schedule or ``batch`` is refused (``InterloomError``). ``step_function``
    gets the step number and the generator to draw data from, and returns the loss and what to
    report; ``on_step`` runs after every step (for snapshots on the way). ``mixed`` computes the
    forward pass in bfloat16 where that is safe.
    """
    trained = [m for m in modules.values()]
    parameters = [p for module in trained for p in module.parameters() if p.requires_grad]
    device = parameters[0].device
    optimizers = Optimizers(trained, schedule)
    average = Average(parameters, schedule.average)
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    work.mkdir(parents=True, exist_ok=True)
    checkpoint = work / f"{name}.pt"
    run = {"seed": seed, "batch": batch, **asdict(schedule)}
    first = 0
    if checkpoint.exists():
        state = _load(checkpoint, run, device)
        for key, module in modules.items():
            module.load_state_dict(state["modules"][key])
        optimizers.load(state["optimizers"])
        average.values = state["average"]
        rng.bit_generator.state = state["numpy"]
        torch.set_rng_state(state["torch"].cpu())
        first = state["step"]
    sums: dict[str, float | torch.Tensor] = {}
    counted = 0
    bar = tqdm(
        range(first, schedule.steps), name, initial=first, total=schedule.steps, mininterval=5
    )
    for step in bar:
        for module in trained:
            module.train()
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            loss, metrics = step_function(step, rng)
        norm = optimizers.step(loss, step)
        average.update(step)
        counted += 1
        for key, value in {"loss": loss.detach(), "gradient_norm": norm, **metrics}.items():
            sums[key] = sums.get(key, 0.0) + value
        done = step + 1
        if done % report_every == 0 or done == schedule.steps:
            means = {key: float(value) / counted for key, value in sums.items()}
            report(done, {**means, "learning_rate": schedule.learning_rate * schedule.share(step)})
            bar.set_postfix({key: f"{value:.4g}" for key, value in means.items()}, refresh=False)
            sums, counted = {}, 0
        if done % checkpoint_every == 0 or done == schedule.steps:
            state = {
                "modules": {key: module.state_dict() for key, module in modules.items()},
                "optimizers": optimizers.state(),
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


def _load(checkpoint: Path, run: Mapping[str, object], device: torch.device) -> dict[str, Any]:
    """A checkpoint of this very run.

    Raises:
        InterloomError: it is of a run with another seed, schedule or batch.
    """
    state = torch.load(checkpoint, map_location=device, weights_only=False)
    other = {key: value for key, value in state["run"].items() if run.get(key) != value}
    if other:
        said = ", ".join(f"{key} {value}, not {run.get(key)}" for key, value in other.items())
        raise InterloomError(
            f"{checkpoint} is of another run ({said}): choose another --work, or remove it"
        )
    return state
