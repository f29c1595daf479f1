"""What all sections of the configuration are made of: their base, and the types of their values."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from selfhost_transport.settings_values import Operations, parse_duration, require_rollup_window

Rights = dict[str, Operations]
Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
RollupWindow = Annotated[int, AfterValidator(require_rollup_window)]
PositiveInt = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]


STRICT: Final = ConfigDict(
    extra="forbid",
    frozen=True,
    hide_input_in_errors=True,
    validate_default=True,
    use_attribute_docstrings=True,
)
"""Unknown keys are errors, values never change, errors never quote a value."""


class Section(BaseModel):
    """A table of the file; `STRICT`."""

    model_config = STRICT
