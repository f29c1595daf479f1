"""Our own HTTP interface to sessions and turns."""
