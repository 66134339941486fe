"""What stands around a run: checkpoints, records, batches, caches, timings."""
