"""CogVideoX (Yang et al., arXiv 2408.06072): transformer, causal autoencoder, family."""
