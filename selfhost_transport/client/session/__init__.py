"""A client's session: its turns, view and history."""
