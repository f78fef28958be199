"""How good an output is: scores of a network, and of the baselines beside it."""
