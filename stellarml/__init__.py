"""Stellar parameters with intervals for stars that only have photometry."""

__version__ = "0.1.0"
