"""Cases that the unmodified PyPI `ably` package plays; they run in an environment of their own (`tests/compat/.venv`).

Nothing here imports the product: to the SDK the gateway is only an address.
"""
