"""From what an agent yields to what is written."""
