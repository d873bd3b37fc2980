"""Programs that measure or make something once: the embedded weights, forgetting, localisation, the demo."""
