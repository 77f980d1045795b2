"""Use a detector: read images, predict, and draw."""
