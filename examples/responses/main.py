"""A question and its answer, with OpenAI's own client."""

import os
import signal
import sys
from functools import partial
from threading import Thread

from openai import OpenAI

gateway = os.environ.get("GATEWAY", "http://127.0.0.1:8080")
# In production: a token of the user's.
client = OpenAI(base_url=f"{gateway}/v1", api_key="dev.local:development-secret")

question = sys.argv[1] if len(sys.argv) > 1 else "hello"
chat = sys.argv[2] if len(sys.argv) > 2 else None
stream = client.responses.create(
    model="assistant", input=question, stream=True, background=True, conversation=chat
)
for event in stream:
    if event.type == "response.created":
        # Ctrl-C. Closing the stream would leave the turn running; this ends it, and with it the streams of all readers.
        stop = partial(client.responses.cancel, event.response.id)
        signal.signal(signal.SIGINT, lambda *_, stop=stop: Thread(target=stop).start())
    elif event.type == "response.output_text.delta":
        print(event.delta, end="", flush=True)
    elif event.type == "response.incomplete":
        print(f"\n[{event.response.status}]", end="")
print()
