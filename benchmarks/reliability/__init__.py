"""What a run survives: each fault brought about for real, as often as its row says."""
