"""Columns and parameters of the registered models: what a table is checked against."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.models import ModelSignature
    from mlflow.types import ParamSpec, Schema


def _columns(*required: str, **optional: Any) -> Schema:
    """Columns of text that must be there, and others by kind that may be."""
    from mlflow.types import ColSpec, DataType, Schema

    needed: list[Any] = [ColSpec(DataType.string, name) for name in required]
    wanted = [ColSpec(kind, name, required=False) for name, kind in optional.items()]
    return Schema([*needed, *wanted])


def _request() -> Schema:
    from mlflow.types import DataType
    from mlflow.types.schema import Array

    return _columns("text", images=Array(DataType.string), kind=DataType.string)


def _answer(*more: Any) -> Schema:
    """The columns of ``answers.answer_row``, and further ones."""
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Array

    several, text = Array(DataType.string), DataType.string
    columns: list[Any] = [ColSpec(several, "texts"), ColSpec(several, "images")]
    return Schema([*columns, ColSpec(text, "trajectory"), ColSpec(text, "failure"), *more])


def _signed(inputs: Schema, outputs: Schema, *params: ParamSpec) -> ModelSignature:
    from mlflow.models import ModelSignature
    from mlflow.types import ParamSchema

    if not params:
        return ModelSignature(inputs, outputs)
    return ModelSignature(inputs, outputs, ParamSchema(list(params)))


def _whole(name: str, default: int) -> ParamSpec:
    from mlflow.types import DataType, ParamSpec

    return ParamSpec(name, DataType.long, default)


def planner() -> ModelSignature:
    """A request in, a plan as text out."""
    return _signed(_request(), _columns("answer", "failure"))


def critic() -> ModelSignature:
    """Pictures and prompts in, a critique out."""
    from mlflow.types import ColSpec, DataType, Schema

    text = DataType.string
    outputs: list[Any] = [ColSpec(DataType.boolean, "success")]
    outputs += [ColSpec(text, name) for name in ("refine_prompt", "reasoning", "failure")]
    return _signed(_columns("after", "prompt", before=text, used_prompt=text), Schema(outputs))


def pipeline() -> ModelSignature:
    """A request in, a sequence out."""
    return _signed(_request(), _answer(), _whole("max_attempts", 5), _whole("seed", 0))


def reasoner() -> ModelSignature:
    """A request in, a sequence out, with the mode taken and the pictures that it took."""
    from mlflow.types import ColSpec, DataType, ParamSpec

    outputs = _answer(ColSpec(DataType.string, "mode"), ColSpec(DataType.long, "images_used"))
    price = ParamSpec("reluctance", DataType.double, 0.0)
    return _signed(_request(), outputs, _whole("image_budget", 0), price, _whole("seed", 0))
