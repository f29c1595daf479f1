"""Reads the configuration: flags before environment before the file before defaults."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.settings.tree import Settings, merged, options
from selfhost_transport.settings_errors import explain


def load_settings(config: Path | None = None, **overrides: object) -> Settings:
    """Read the file, the environment, and `overrides` by option name (`redis=…`, `port=…`; None: not given).

    Raises InvalidArgument, naming the key, for a file that cannot be read or a value or key that is wrong.
    """
    given: dict[str, Any] = {} if config is None else {"config": config}
    for name, value in overrides.items():
        if name not in options():
            raise InvalidArgument(f"there is no option {name!r}; see docs/configuration.md")
        if value is not None:
            given = merged(given, options()[name].place(value))
    file = config or _config_in_environment()
    try:
        return Settings(**given)
    except ValidationError as error:
        raise InvalidArgument(explain(error, Settings, file, _sources(overrides))) from None
    except tomllib.TOMLDecodeError as error:
        raise InvalidArgument(f"{file} is not valid TOML: {error}") from None
    except UnicodeDecodeError:
        raise InvalidArgument(f"{file} is not valid TOML: it is not UTF-8") from None
    except OSError as error:
        raise InvalidArgument(f"the configuration file {file} cannot be read: {error.strerror}") from None


def _config_in_environment() -> Path | None:
    name = os.environ.get(options()["config"].variable)
    return Path(name) if name else None


def _sources(overrides: Mapping[str, object]) -> dict[tuple[str, ...], str]:
    """Where values come from that are not the file's: a flag of the command line, or a variable."""
    found = {}
    for option in options().values():
        if overrides.get(option.name) is not None:
            found[option.path] = f"--{option.name.replace('_', '-')}"
        elif os.environ.get(option.variable):
            found[option.path] = option.variable
    return found
