"""CLIP dual encoders behind one contract."""
