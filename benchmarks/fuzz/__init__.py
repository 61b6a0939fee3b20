"""Fuzzing of everything that reads a file: whatever is in it, it is read, or refused by name."""
