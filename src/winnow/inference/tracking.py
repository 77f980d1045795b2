"""Objects keep a number from frame to frame: ByteTrack, from the package `trackers`."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import supervision as sv

from ..errors import UsageError

DOUBLE = 0.6  # IoU of two boxes from which they are one object, of whatever class


class Tracks:
    """The objects of one video. Frames are handed over in order.

    threshold  the lowest score that a detection was reported with; tracks begin with surer ones
    rate       frames a second
    """

    def __init__(self, threshold: float, rate: float):
        self.tracker: Any = tracker_class()(frame_rate=rate, track_activation_threshold=max(threshold, 0.25),
                                            high_conf_det_threshold=max(threshold, 0.25))

    def follow(self, found: sv.Detections, time: float) -> sv.Detections:
        """The detections of a frame, shown `time` seconds after the first, with `tracker_id`, best first.

        -1 is the id of an object that is too new to have a number. Of boxes that are nearly the same only the best is
        left: each would become an object of its own, and they would take each other's numbers.
        """
        found = found.with_nms(DOUBLE, class_agnostic=True)
        followed = cast(sv.Detections, self.tracker.update(found, timestamp=time))
        if followed.confidence is None:  # there are none
            return followed
        return cast(sv.Detections, followed[np.argsort(-followed.confidence, kind="stable")])


def tracker_class() -> Any:
    """ByteTrack's class. UsageError says what to install where it is missing."""
    try:
        from trackers import ByteTrackTracker  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise UsageError(f"tracking needs the package trackers ({error}): pip install 'winnow-detr[tracking]'") \
            from error
    return ByteTrackTracker
