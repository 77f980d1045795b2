"""What was found, in the words of the data."""

from __future__ import annotations

import numpy as np

from winnow.data.categories import Category
from winnow.inference.detections import as_detections


def test_classes_have_the_ids_and_names_of_the_data():
    found = as_detections(np.zeros((2, 4), np.float32), [Category(7, "Spreu ü"), Category(3, "grain")])
    assert found.class_id.tolist() == [7, 3] and found.data["class_name"].tolist() == ["Spreu ü", "grain"]
    assert found.confidence is None


def test_nothing_found_is_told_in_the_same_types():
    found = as_detections(np.zeros((0, 4), np.float32), [], np.zeros(0, np.float32))
    assert len(found) == 0 and found.class_id.dtype == int and found.data["class_name"].dtype.kind == "U"
