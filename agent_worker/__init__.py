"""The worker that takes turns from the queue and runs agents."""
