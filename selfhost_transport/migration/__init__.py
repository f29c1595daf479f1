"""Moves a deployment's data to another Redis: from one server to a Cluster and back, and into more buckets."""
