"""The folder that `parity power` puts on `PYTHONPATH`: nothing in it imports this project."""
