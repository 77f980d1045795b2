"""Weights in and out: our checkpoints, and other layouts into ours and back."""
