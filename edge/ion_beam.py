"""Ion-beam technique (PIXE and PIGE): events of passes in, lithium per layer out."""

from __future__ import annotations

from edge.settings import Settings

__all__ = ["Settings"]
