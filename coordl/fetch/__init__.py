"""Sample index -> encoded bytes, in lookup order: cache, (peers), storage."""
