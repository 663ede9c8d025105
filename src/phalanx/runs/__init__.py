"""What a run leaves: its folder, its record, and the network that it predicts by."""
