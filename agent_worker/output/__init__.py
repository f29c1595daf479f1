"""From an agent's chunks to writes in the store."""
