"""The renderer of skin lesions, and the writers of the six publishers' layouts."""
