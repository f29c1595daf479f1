"""A question and its answer, with OpenAI's own client."""

import os
import sys

from openai import OpenAI

gateway = os.environ.get("GATEWAY", "http://127.0.0.1:8080")
# In production: a token of the user's.
client = OpenAI(base_url=f"{gateway}/v1", api_key="dev.local:development-secret")

question = sys.argv[1] if len(sys.argv) > 1 else "hello"
chat = sys.argv[2] if len(sys.argv) > 2 else None
stream = client.responses.create(
    model="assistant", input=question, stream=True, background=True, conversation=chat
)
response_id = ""
try:
    for event in stream:
        if event.type == "response.created":
            response_id = event.response.id
        elif event.type == "response.output_text.delta":
            print(event.delta, end="", flush=True)
    print()
except KeyboardInterrupt:
    # Closing the stream would leave the turn running; this ends it.
    print(f"\n[{client.responses.cancel(response_id).status}]")
