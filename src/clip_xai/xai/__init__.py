"""What is behind a score: targets, one shared trace of the tower, explainers and their attributions."""
