"""Models that the engine can train, behind one protocol (base.py)."""
