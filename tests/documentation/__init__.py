"""The documentation, executed: every block of code and every command of README and docs."""
