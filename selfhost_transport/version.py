"""The version of the installed package, one for `selfhost_transport`, `gateway` and `agent_worker`."""

from importlib import metadata

try:
    __version__ = metadata.version("selfhost-transport")
except metadata.PackageNotFoundError:  # a source tree on the path, not installed
    __version__ = "0+unknown"
