"""A client's connection to a gateway: a core without I/O, and what drives it."""
