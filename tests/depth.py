"""How much is tried: `make test` tries each kind of thing, `make test-deep` many of each."""

import os

IS_DEEP = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
