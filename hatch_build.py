"""Compiles the accelerator while a wheel is built, where there is a compiler; without one the wheel is pure Python.

`SELFHOST_TRANSPORT_PURE=1` leaves it out, `SELFHOST_TRANSPORT_PURE=0` fails the build where it cannot be compiled.
"""

from __future__ import annotations

import os
import platform
import shutil
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import sys_tags

_FOLDER = "selfhost_transport/accelerator"
_MODULE = "selfhost_transport.accelerator._native"


class AcceleratorHook(BuildHookInterface[Any]):
    """Adds the compiled module to wheels; an editable install gets it beside its source."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before a wheel is built."""
        if version == "editable":
            # Not overwritten: a process may have it loaded.
            for old in Path(self.root, _FOLDER).glob("_native.*"):
                if old.suffix in (".so", ".pyd"):
                    old.unlink()
        choice = os.environ.get("SELFHOST_TRANSPORT_PURE", "")
        if choice not in ("", "0") or not _has_stable_abi():
            return
        self._build = Path(tempfile.mkdtemp())
        try:
            built = _compile(Path(self.root), self._build)
        except (Exception, SystemExit) as error:
            if choice == "0":
                raise
            self.app.display_warning(
                f"the accelerator is left out, Python does the same more slowly: {error}"
            )
            return
        if version == "editable":
            shutil.copyfile(built, Path(self.root, _FOLDER, built.name))
            return
        build_data["pure_python"] = False
        build_data["tag"] = f"cp311-abi3-{_platform()}"
        build_data["force_include"][str(built)] = f"{_FOLDER}/{built.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Called after it was built."""
        if hasattr(self, "_build"):
            shutil.rmtree(self._build, ignore_errors=True)


def _has_stable_abi() -> bool:
    """Not in PyPy, nor in CPython without its global lock."""
    return platform.python_implementation() == "CPython" and not sysconfig.get_config_var("Py_GIL_DISABLED")


def _platform() -> str:
    """As it is named for a wheel that was not checked for other systems."""
    return next(
        tag.platform
        for tag in sys_tags()
        if "manylinux" not in tag.platform and "musllinux" not in tag.platform
    )


def _compile(root: Path, folder: Path) -> Path:
    """The compiled file. Raises whatever the compiler's driver raises."""
    from setuptools import Distribution, Extension
    from setuptools.command.build_ext import build_ext

    for header in Path(root, _FOLDER).glob("_*.h"):
        shutil.copyfile(header, folder / header.name)
    source = folder / "_native.c"
    shutil.copyfile(root / _FOLDER / source.name, source)
    extension = Extension(_MODULE, [str(source)], py_limited_api=True)
    command = build_ext(Distribution({"name": "accelerator", "ext_modules": [extension]}))
    command.build_temp = command.build_lib = str(folder)
    command.ensure_finalized()
    command.run()
    return Path(command.get_ext_fullpath(_MODULE))
