"""LTX-2.0 and LTX-2.3, video stream only: transformer, connectors, autoencoder, family."""
