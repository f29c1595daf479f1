"""Tests of the messages of a turn."""
