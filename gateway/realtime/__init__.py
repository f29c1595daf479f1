"""One client's realtime connection: a core without I/O, and what drives it."""
