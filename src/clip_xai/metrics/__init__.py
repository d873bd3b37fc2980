"""What is counted: captions, their baselines, intervals and the place of heat maps."""
