"""The Ably protocol: frames, messages, encodings, capabilities, tokens.  No I/O."""
