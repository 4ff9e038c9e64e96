"""The size of a page. PostgreSQL can be built with others; drkit refuses those."""

PAGE = 8192
"""Bytes of a page."""
