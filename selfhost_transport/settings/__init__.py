"""Every option of the product, in one frozen tree, from flags, environment, a TOML file and defaults.

The sections are those of the file (docs/configuration.md), by subject in the modules here. Each single value also has one flat
*option name*, unique in the tree: the keyword of `load_settings`, and, in capitals after `SELFHOST_TRANSPORT_`, the environment
variable.
"""

from selfhost_transport.settings.callers import DEV_KEY_NAME, DEV_KEY_SECRET, IssuerRule, KeyRule, ProxyRule
from selfhost_transport.settings.gateway import DEV_AGENT, GatewaySettings, LimitSettings
from selfhost_transport.settings.loading import load_settings
from selfhost_transport.settings.namespaces import NamespaceRule
from selfhost_transport.settings.notifications import PushSettings, WebhookRule
from selfhost_transport.settings.observing import LogSettings, TracingSettings
from selfhost_transport.settings.redis import RedisSettings
from selfhost_transport.settings.tree import ENV_PREFIX, Option, Settings, options
from selfhost_transport.settings.worker import WorkerSettings

__all__ = [
    "DEV_AGENT",
    "DEV_KEY_NAME",
    "DEV_KEY_SECRET",
    "ENV_PREFIX",
    "GatewaySettings",
    "IssuerRule",
    "KeyRule",
    "LimitSettings",
    "LogSettings",
    "NamespaceRule",
    "Option",
    "ProxyRule",
    "PushSettings",
    "RedisSettings",
    "Settings",
    "TracingSettings",
    "WebhookRule",
    "WorkerSettings",
    "load_settings",
    "options",
]
