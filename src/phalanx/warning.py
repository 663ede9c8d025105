"""Warnings that name the user's own line, however deep they come from."""

from __future__ import annotations

import sys
import warnings

US = __name__.partition(".")[0] + "."


def warn_caller(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn, and name the line that called phalanx."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(US):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def warn_interrupted() -> None:
    """Of a training that Ctrl-C has ended, in scikit-learn's words."""
    warn_caller("Training interrupted by user.")
