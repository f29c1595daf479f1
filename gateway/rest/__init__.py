"""The Ably REST interface."""
