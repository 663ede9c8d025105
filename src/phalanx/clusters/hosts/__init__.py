"""Several hosts: how they were launched, where they meet, what they say to each other."""
