"""What pydantic finds wrong, on one line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ark_framework.errors import ConfigError, did_you_mean

NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")  # in JSON
SHOWN = 120  # letters of a value
Model = TypeVar("Model", bound=BaseModel)


def checked(
    kind: type[Model],
    values: Any,
    *,
    where: str,
    hint: Callable[[ValidationError], str] = lambda _: "",
) -> Model:
    """Read plain data as a model.

    Args:
        kind: The model.
        values: The data.
        where: What they are, for people.
        hint: What else to say of what is wrong.

    Raises:
        ConfigError: one line with the key, the value and what is accepted.
    """
    try:
        # JSON mode: lists become tuples, while strings and numbers stay strictly apart.
        text = json.dumps(values)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: no plain data: {' '.join(str(error).split())}") from error
    if NUL.search(text):  # no name of a file or dataset has one
        raise ConfigError(f"{where}: a NUL character in a text")
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise ConfigError(explain(error, kind, where=where) + hint(error)) from error


def explain(error: ValidationError, model: type[BaseModel], *, where: str = "config") -> str:
    """Turn pydantic's first error into one line, with a suggestion for an unknown key."""
    first = error.errors(include_url=False)[0]
    key = " ".join(".".join(str(part)[:80] for part in first["loc"]).split())
    if first["type"] == "extra_forbidden":
        known = _keys(model, first["loc"][:-1])
        key = key[:SHOWN]
        last = str(first["loc"][-1])[:SHOWN]
        hint = did_you_mean(last, known) or f"; known: {', '.join(sorted(known))}"
        return f"{where}: unknown key {key!r}{hint}"
    if first["type"] == "missing":
        return f"{where}: {key!r} is required"
    message = first["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    given = repr(first["input"])
    given = given if len(given) <= SHOWN else f"{given[:SHOWN]}..."
    return f"{where}: {key + ' = ' + given + ': ' if key else ''}{' '.join(message.split())}"


def _keys(model: type[BaseModel], path: Iterable[Any]) -> list[str]:
    for part in path:
        field = model.model_fields.get(str(part))
        if field is None:
            continue
        choices = [field.annotation, *getattr(field.annotation, "__args__", ())]
        choices += [inner for each in choices for inner in getattr(each, "__args__", ())]
        found = [each for each in choices if isinstance(each, type) and issubclass(each, BaseModel)]
        if found:
            model = found[0]
    return list(model.model_fields)
