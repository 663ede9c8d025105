"""The step as a transaction: shards computed, blocks updated, whoever lives to do it."""
