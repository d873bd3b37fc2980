"""Training: features, batches, the Lightning module and its callbacks."""
