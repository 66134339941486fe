"""The family of 3-D UNets with a CLIP text encoder and an image autoencoder."""
