"""What each stage of a token's way costs: one script per stage, all run by `python -m benchmarks`."""
