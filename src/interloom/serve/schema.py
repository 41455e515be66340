"""A request of OpenAI's Responses API, as far as it means something here, and our extensions."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from interloom.records import RequestKind
from interloom.serve.errors import ApiError

Model = TypeVar("Model", bound=BaseModel)
UNSUPPORTED = (
    "previous_response_id", "conversation", "prompt", "modalities",
)  # fmt: skip
"""Fields of OpenAI's that ask for something which is not done here."""


EXAMPLE = "a red circle at the top left, a blue cup at the center"


class Part(BaseModel):
    """Base of everything inside ``input``: further fields are let pass, because clients send back
    what they were sent."""

    model_config = ConfigDict(strict=True, extra="ignore")


class InputText(Part):
    """A text."""

    type: Literal["input_text", "output_text", "text"]
    text: str


class InputImage(Part):
    """A picture as a data URL."""

    type: Literal["input_image"]
    image_url: Annotated[
        str,
        Field(
            pattern=r"^data:image/(png|jpeg|webp);base64,[A-Za-z0-9+/]+={0,2}$",
            description="A `data:` URL of a PNG, JPEG or WebP; addresses are not fetched.",
        ),
    ]


class Message(Part):
    """What one side said."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[Annotated[InputText | InputImage, Field(discriminator="type")]]


class GivenPicture(Part):
    """A picture of an earlier answer, sent back to go on from."""

    type: Literal["image_generation_call"]
    result: Annotated[str, Field(description="Base64 of the picture.", min_length=1)]


class ImageTool(Part):
    """The built-in tool that makes pictures; it is always there, named or not."""

    type: Literal["image_generation"]
    partial_images: Annotated[
        int | None,
        Field(ge=0, le=3, description="Above 0, every attempt is streamed as a partial image."),
    ] = None


Key = Annotated[str, Field(max_length=64)]
Value = Annotated[str, Field(max_length=512)]
NOT_USED: Any = Field(default=None, description="Accepted and without effect.")


class CreateResponse(BaseModel):
    """`POST /v1/responses`. The fields after `metadata` are ours; in the `openai` client they go
    into `extra_body`."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        json_schema_extra={"examples": [{"input": EXAMPLE, "seed": 7, "include_attempts": True}]},
    )

    model: Annotated[
        str | None, Field(description="A name of `/v1/models`; the served one by default.")
    ] = None
    input: Annotated[
        str | list[Message | GivenPicture],
        Field(description="A text, or messages of texts and pictures."),
    ]
    instructions: Annotated[str | None, Field(description="Goes before the text of the input.")] = (
        None
    )
    stream: bool | None = False
    store: Annotated[
        bool | None,
        Field(description="False keeps neither the result nor its content in the trace."),
    ] = True
    tools: list[ImageTool] | None = None
    max_tool_calls: Annotated[
        int | None, Field(ge=1, description="Another name of `image_budget`.")
    ] = None
    metadata: Annotated[dict[Key, Value] | None, Field(max_length=16)] = None

    t_max: Annotated[
        int | None, Field(ge=1, le=20, description="Pictures that one step may cost.")
    ] = None
    image_budget: Annotated[
        int | None, Field(ge=1, description="Pictures that the whole request may cost.")
    ] = None
    seed: Annotated[
        int | None, Field(ge=0, lt=2**31, description="The same seed draws the same pictures.")
    ] = None
    generator: Annotated[str | None, Field(description="Which of the served generators.")] = None
    reluctance: Annotated[
        float | None,
        Field(
            ge=0,
            le=1000,
            description="A soft budget: nats by which a unified model is held back from every "
            "further picture. Those that have no such choice refuse it, as the others refuse "
            "`t_max` and `generator`; `/v1/models` lists the `options`.",
        ),
    ] = None
    kind: Annotated[
        RequestKind | None,
        Field(description="`text_response` wants one text per picture and no new picture."),
    ] = None
    include_attempts: Annotated[
        bool, Field(description="Return all attempts with their pictures and critiques.")
    ] = False

    background: Annotated[bool | None, Field(description="True is refused.")] = None
    include: Any = NOT_USED
    max_output_tokens: Any = NOT_USED
    parallel_tool_calls: Any = NOT_USED
    prompt_cache_key: Any = NOT_USED
    reasoning: Any = NOT_USED
    safety_identifier: Any = NOT_USED
    service_tier: Any = NOT_USED
    stream_options: Any = NOT_USED
    temperature: Any = NOT_USED
    text: Any = NOT_USED
    tool_choice: Any = NOT_USED
    top_logprobs: Any = NOT_USED
    top_p: Any = NOT_USED
    truncation: Any = NOT_USED
    user: Any = NOT_USED


class Feedback(BaseModel):
    """What a person thinks of a step of a result."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        json_schema_extra={
            "examples": [{"step": 1, "accept": False, "correction": "draw a red circle there"}]
        },
    )

    step: Annotated[int, Field(ge=1, description="The plan's `step_number`.")]
    attempt: Annotated[int | None, Field(ge=0, description="From 0; the shown one by default.")] = (
        None
    )
    accept: Annotated[bool, Field(description="Whether the picture is what the step asks for.")]
    correction: Annotated[
        str | None,
        Field(max_length=2000, description="The prompt that should be tried next instead."),
    ] = None
    comment: Annotated[str | None, Field(max_length=2000)] = None


def read(model: type[Model], body: bytes) -> Model:
    """A JSON body as ``model``.

    Raises:
        ApiError: 400, naming the first wrong field.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False, include_context=False)
        # Of a union every branch complains; the one that came furthest knows what is meant.
        first = max(problems, key=lambda problem: len(problem["loc"]))
        where = ".".join(str(part) for part in first["loc"] if _is_field(part))
        if first["type"] == "json_invalid":
            raise ApiError(400, f"The body is not JSON ({first['msg']}).") from None
        if first["type"] == "extra_forbidden":
            known = f"{where} is not supported" if where in UNSUPPORTED else f"unknown: {where}"
            raise ApiError(
                400, f"Parameter {known}.", param=where, code="unknown_parameter"
            ) from None
        raise ApiError(
            400, f"{where or 'The body'}: {first['msg']}", param=where, code="invalid_value"
        ) from None


def _is_field(part: int | str) -> bool:
    """Whether a part of an error's place is in the body, and no name of a union's branch."""
    return isinstance(part, int) or (part.islower() and "[" not in part and part != "str")
