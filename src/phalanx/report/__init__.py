"""The report of a run: one self-contained HTML page."""

from phalanx.report.page import render

__all__ = ["render"]
