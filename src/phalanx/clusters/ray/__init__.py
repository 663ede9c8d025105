"""Hosts that Ray provides: one actor on a node, watched over by the caller's process."""
