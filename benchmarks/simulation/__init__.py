"""A simulation of a deployment, in discrete events: from the measured cost of its parts to loads that no machine here carries."""
