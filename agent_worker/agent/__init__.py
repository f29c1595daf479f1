"""What the author of an agent touches."""
