"""The data set doctor: what is wrong with the data, what it looks like, and a repaired copy."""
