"""Where rays are sampled: coarse intervals, cached fields that weigh them, and importance sampling by these weights."""
