"""A model provider that costs nothing: the protocols of OpenAI and Anthropic, with latencies and failures as asked for."""
