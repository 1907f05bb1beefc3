"""Puna: pull, keep, run and serve language models. Nothing silent."""

__version__ = "0.1.0"
