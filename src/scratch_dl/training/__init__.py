"""A training: the loop, what surrounds it, and how it is gone on with."""
