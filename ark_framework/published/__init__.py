"""Weights that the method's authors, timm and SimMIM publish: read safely, recognized, renamed."""

from __future__ import annotations

from ark_framework.published.importer import Imported, import_file
from ark_framework.published.names import convert

__all__ = ["Imported", "convert", "import_file"]
