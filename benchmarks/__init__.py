"""Measurements of speed and memory. They print tables and never assert on time."""
