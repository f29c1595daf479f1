"""The data folder of `dev`: one `dev` at a time uses it, and says there where it is."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from selfhost_transport.errors import InvalidArgument


class DevFolder:
    """Holds the folder for as long as this process lives, however it ends. Use it as a context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = -1

    def __enter__(self) -> Self:
        """Raises InvalidArgument, at once, when another `dev` has the folder, or when it cannot be written."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self._folder / "dev.json", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise InvalidArgument(
                f"the data folder {self._folder} cannot be used: {error.strerror}; choose another one by --data-dir"
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            other = os.read(self._file, 4096).decode(errors="replace")
            os.close(self._file)
            raise InvalidArgument(
                f"another `dev` is running in this folder ({_described(other)}): use that one, or start a second one "
                "with a --port and a --data-dir of its own"
            ) from None
        self.describe()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.ftruncate(self._file, 0)
        os.close(self._file)

    def describe(self, **places: str) -> None:
        """Write down where this `dev` is: `url`, `redis`."""
        text = json.dumps({"pid": os.getpid(), **places})
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, text.encode(), 0)


def redis_of_dev(folder: Path) -> str:
    """Address of the Redis that the `dev` of a data folder has started. Raises InvalidArgument when none is ready."""
    try:
        with (folder / "dev.json").open() as file:
            if not _is_locked(file.fileno()):
                # What a `dev` that was killed has left behind.
                raise ValueError
            return str(json.load(file)["redis"])
    except (OSError, ValueError, TypeError, KeyError):
        raise InvalidArgument(
            f"no `dev` is running with the data folder {folder}: start it, or give --redis URL"
        ) from None


def _is_locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _described(text: str) -> str:
    try:
        found = json.loads(text)
        return f"{found['url']}, process {found['pid']}" if "url" in found else f"process {found['pid']}"
    except (ValueError, TypeError, KeyError):
        return "it is just starting"
