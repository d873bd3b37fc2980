"""Run directories: claiming, finding, resuming them, what their models descend from, where their numbers go."""
