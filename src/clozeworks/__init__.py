"""Clozeworks: from raw text to your own BERT in service."""

__version__ = "0.1.0"
