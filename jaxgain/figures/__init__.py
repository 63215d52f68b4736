"""Figures: `draw_*` functions that draw a dataset and compute nothing; a file per kind of dataset."""
