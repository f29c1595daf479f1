"""Faults put into the product on purpose: what the chaos driver and the tests do not see is no proof of anything."""
