"""Open-Sora Plan v1.3: transformer with sparse attention, WF-VAE, family."""
