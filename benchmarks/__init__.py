"""Measurements, as ratios against something that runs beside them. Never part of the product."""
