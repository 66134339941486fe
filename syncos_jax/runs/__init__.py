"""Around a run: jobs, records, batches, compiled programs, progress, signals."""
