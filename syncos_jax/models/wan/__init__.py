"""Wan 2.1 and 2.2: transformer, causal autoencoder, and the family that they make."""
