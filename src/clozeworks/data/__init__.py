"""From files to Batches: sources, checks, shards, order and packing; nothing of any model."""
