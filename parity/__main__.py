"""`python -m parity`."""

import sys

from parity.cli import main

if __name__ == "__main__":  # a worker process imports this module too
    sys.exit(main())
