"""Networks whose features measures are taken of: ViT, CLIP, EfficientNet-lite0, MiniLM.

They read the files that people have (transformers' folders, torch checkpoints), through the same
tables as converted models: a tensor that has no place, and a place that gets none, is an error.
"""
