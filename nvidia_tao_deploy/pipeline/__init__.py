"""The flow under way: the loop over batches, progress, status.json."""
