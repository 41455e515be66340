"""What a section is, reading a params file, and saying in one line what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict

from interloom.errors import InterloomError


class Section(BaseModel):
    """Base of all sections: immutable, no unknown keys, no silent conversions of type.

    Lists of the params file become the field's own kind: prefer ``tuple[...]``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def read_params(path: str | Path) -> dict[str, Any]:
    """The params file as plain values, unchecked but for being a YAML mapping.

    Read as DVC reads it (YAML 1.2): ``1e-5`` is a number; a key given twice is an error.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    path = Path(path)
    try:
        raw = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InterloomError(f"{path}: no such file; run from the project folder") from None
    except UnicodeDecodeError as error:
        raise InterloomError(f"{path}: not UTF-8 text ({error.reason})") from None
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "unknown"
        raise InterloomError(f"{path}: not YAML: {error.problem}, line {line}") from None
    except YAMLError as error:
        raise InterloomError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise InterloomError(f"{path}: expected sections (key: value), found {type(raw).__name__}")
    return raw


def explain(problem: Any, root: type[BaseModel]) -> str:
    """One validation problem of a model ``root`` as ``key = value: what is allowed``."""
    key = ".".join(str(part) for part in problem["loc"])
    kind, context = problem["type"], problem.get("ctx", {})
    if kind == "extra_forbidden":
        return f"{key}: unknown key{_did_you_mean(problem['loc'], root)}"
    if kind == "missing":
        return f"{key}: missing; {_allowed(problem['loc'], root)}"
    value = problem["input"]
    shown = "a section" if isinstance(value, dict) else repr(value)
    text = _allowed(problem["loc"], root) or problem["msg"]
    if kind == "value_error":
        text = str(context.get("error", problem["msg"]))
    return f"{key} = {shown}: {text}"


def _allowed(location: tuple[Any, ...], root: type[BaseModel]) -> str:
    """What the field at ``location`` allows, from its annotation; empty if that cannot be said."""
    from pydantic import TypeAdapter

    model: Any = root
    for index, part in enumerate(location):
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            return ""
        field: Any = model.model_fields.get(str(part))
        if field is None:
            return ""
        if index == len(location) - 1:
            kind: Any = field.annotation
            if field.metadata:
                kind = Annotated[kind, *field.metadata]
            return _describe(TypeAdapter(kind).json_schema())
        model = field.annotation
    return ""


def _describe(schema: dict[str, Any]) -> str:
    """A JSON schema of a field in a few words: type and range."""
    if "enum" in schema:
        return "allowed: " + ", ".join(map(str, schema["enum"]))
    if "const" in schema:
        return f"allowed: {schema['const']}"
    if "anyOf" in schema:
        return " or ".join(_describe(option) for option in schema["anyOf"])
    kinds = {
        "integer": "a whole number",
        "number": "a number",
        "boolean": "true or false",
        "string": "text",
        "object": "a section",
        "array": "a list",
        "null": "null",
    }
    words = [kinds.get(schema.get("type", ""), "a value")]
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    words += [f"{sign} {schema[name]}" for name, sign in bounds.items() if name in schema]
    if "multipleOf" in schema:
        words.append(f"a multiple of {schema['multipleOf']}")
    if "pattern" in schema:
        words.append(f"matching {schema['pattern']}")
    if schema.get("minLength"):
        words.append(f"at least {schema['minLength']} long")
    return "expected " + " ".join(words[:1]) + (" " + ", ".join(words[1:]) if words[1:] else "")


def _did_you_mean(location: tuple[Any, ...], root: type[BaseModel]) -> str:
    """A hint with the nearest known key beside an unknown one."""
    import difflib

    model: Any = root
    for part in location[:-1]:
        field = model.model_fields.get(str(part))
        if field is None or not isinstance(field.annotation, type):
            return ""
        model = field.annotation
    near = difflib.get_close_matches(str(location[-1]), model.model_fields, n=1)
    return f" (did you mean {near[0]}?)" if near else ""
