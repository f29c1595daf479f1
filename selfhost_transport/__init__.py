"""What every process shares, and the Python SDK of the session layer."""
