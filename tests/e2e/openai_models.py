"""Checks what the service answers against the models of the published `openai` package, field by field."""

from __future__ import annotations

from typing import Any

from openai.types.responses import Response, ResponseItemList, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

_EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
_RESPONSES: TypeAdapter[Any] = TypeAdapter(Response)
_ITEMS: TypeAdapter[Any] = TypeAdapter(ResponseItemList)


def valid_event(event: dict[str, Any]) -> None:
    """The event is one that the package describes, with no field that it does not."""
    _require_known(_EVENTS.validate_python(event, strict=True), event["type"])


def valid_response(response: dict[str, Any]) -> None:
    """A response; apart from `store`, which requests have and the service repeats as its original does."""
    known = {name: value for name, value in response.items() if name != "store"}
    _require_known(_RESPONSES.validate_python(known, strict=True), "response")


def valid_items(page: dict[str, Any]) -> None:
    """A page of items."""
    _require_known(_ITEMS.validate_python(page, strict=True), "page")


def _require_known(value: Any, where: str) -> None:
    if isinstance(value, BaseModel):
        extra = set(value.model_extra or {}) - ({"store"} if isinstance(value, Response) else set())
        assert not extra, f"{where} has unknown fields {extra}"
        for name in type(value).model_fields:
            _require_known(getattr(value, name, None), f"{where}.{name}")
    elif isinstance(value, list):
        for number, one in enumerate(value):
            _require_known(one, f"{where}[{number}]")
