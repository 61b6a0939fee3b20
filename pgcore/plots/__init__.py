"""Learning curves: as numbers (`curves`), and as pictures of them (`pictures`)."""
