"""How workers tell each other what is done: through words of the arena."""
