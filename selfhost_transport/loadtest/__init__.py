"""The load generator: many turns against a deployment, measured and verified while they run."""
