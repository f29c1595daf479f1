"""The same load on what people would otherwise build this with: `python -m benchmarks.rivals`."""
