"""Adapters: the streams of model SDKs as chunks, and the conversation in the form each provider wants.

One module per kind of stream, so that only the SDK in use must be installed (extras `openai`, `anthropic`,
`pydantic-ai`, `langgraph`): `openai_chat`, `openai_responses`, `anthropic_messages`, `pydantic_ai_events`,
`langgraph_events`. Each has a `stream` and a `messages`.
"""

from agent_worker.adapters.failures import Failure
from agent_worker.adapters.stream import ProviderStream

__all__ = ["Failure", "ProviderStream"]
