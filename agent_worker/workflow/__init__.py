"""Turns that an outside engine drives."""
