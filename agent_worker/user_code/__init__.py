"""User code in the worker: kept from the process and from the loop."""
