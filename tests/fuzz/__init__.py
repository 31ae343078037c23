"""Damaged files, made by the thousand from a seed, and what the readers say to them."""
