"""What pydantic finds wrong with a configuration file, in a user's words and at the keys of the file."""

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from exporter import fields, yamlfile
from exporter.filters import Settings


def keys(model: type[Settings]) -> Iterator[tuple[str, FieldInfo, tuple[type[Settings], ...]]]:
    """The keys of a mapping of the file: its name there, what is known of it, the mappings below it.

    There are several where the key `type` of the mapping says which of them it is.
    """
    for name, about in model.model_fields.items():
        if not about.exclude:
            yield str(about.validation_alias or name), about, tuple(_mappings(about.annotation))


def types(model: type[Settings]) -> tuple[str, ...]:
    """The values of `type` that a mapping is known by; empty where it is known by its place alone."""
    about = model.model_fields.get("type")
    return get_args(about.annotation) if about and get_origin(about.annotation) is Literal else ()


def explained(root: type[Settings], error: ErrorDetails) -> tuple[yamlfile.Key, str]:
    """Where an error of pydantic's stands in the file, and what it says."""
    key, models = _placed(root, error["loc"])
    context = error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            known = _names(_placed(root, error["loc"][:-1])[1])
            return key, f"is no known key{fields.suggestion(str(key[-1]), known)}"
        case "missing":
            return key, "is missing"
        case "beside":
            return (*key[:-1], context["key"]), context["text"]
        case "value_error":
            return key, str(context["error"])
        case "literal_error" | "enum":
            return key, f"must be one of {context['expected']}"
        case "union_tag_not_found":
            return (*key, "type"), f"is missing; known are {', '.join(_tags(models))}"
        case "union_tag_invalid":
            return (*key, "type"), f"is no known type{fields.suggestion(context['tag'], _tags(models))}"
        case "string_too_short":
            return key, "must not be empty"
        case "string_type" | "path_type":
            return key, "must be text; if it looks like something else to YAML, put it in quotes"
        case "bool_type":
            return key, "must be true or false"
        case "int_type":
            return key, "must be a whole number"
        case "float_type" | "greater_than_equal" | "finite_number":
            return key, "must be a number, 0 or greater"
        case "tuple_type":
            return key, "must be a list, like [a, b]"
        case "model_type" | "model_attributes_type":
            return key, f"must be a mapping with the keys {', '.join(_names(models))}"
        case _:
            return key, error["msg"]


def shown(key: yamlfile.Key) -> str:
    """`servers[0].url: `, or nothing for the whole file."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key)
    return f"{text.removeprefix('.')}: " if text else ""


def _placed(root: type[Settings], place: yamlfile.Key) -> tuple[yamlfile.Key, tuple[type[Settings], ...]]:
    """The place without the types that pydantic puts into it, and the mappings that may be there."""
    key: list[str | int] = []
    models: tuple[type[Settings], ...] = (root,)
    for part in place:
        chosen = tuple(model for model in models if part in types(model))
        if len(models) > 1 and chosen:
            models = chosen
            continue
        key.append(part)
        if isinstance(part, str):
            models = next((below for m in models for name, _, below in keys(m) if name == part), ())
    return tuple(key), models


def _mappings(annotation: Any) -> Iterator[type[Settings]]:
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        yield annotation
    for inner in get_args(annotation):
        yield from _mappings(inner)


def _names(models: tuple[type[Settings], ...]) -> list[str]:
    """The keys that all of them have."""
    names = [[name for name, _, _ in keys(model)] for model in models]
    return [name for name in names[0] if all(name in others for others in names)] if names else []


def _tags(models: tuple[type[Settings], ...]) -> list[str]:
    return [tag for model in models for tag in types(model)]
