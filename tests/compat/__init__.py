"""The unmodified SDKs, and recordings of them, against real gateways."""
