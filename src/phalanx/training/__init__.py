"""A training from beginning to end: who follows it, session by session, and its checkpoints."""
