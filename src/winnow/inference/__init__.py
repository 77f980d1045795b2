"""Use a detector: read images, predict, draw, and look at what it kept."""

from __future__ import annotations

import warnings

# supervision warns when OpenCV is missing; nothing here needs it, and a user should not have to wonder.
warnings.filterwarnings("ignore", message="OpenCV", category=UserWarning)
