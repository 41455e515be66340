"""Kinds of values that several sections have."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

System = Literal["agents", "adaptive"]
"""The two systems: planner and critic around a generator, and the unified model."""
Fraction = Annotated[float, Field(ge=0, le=1)]
Score10 = Annotated[float, Field(ge=0, le=10)]
Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0, le=1)]
GeneratorName = Literal["generator", "generator_weak"]
"""A generator of the section ``models``."""
BenchmarkName = Literal["ueval", "comm", "wise", "rise", "geneval", "kris", "omnicontext"]
