"""Denoises pictures of any size with a trained network: files in and out, and tiles with the untiled result."""
