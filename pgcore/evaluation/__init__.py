"""What a policy is worth.

| module       | owns                                                    |
| ------------ | ------------------------------------------------------- |
| `playing`    | evaluation of any `act(obs, noise)` in Gymnasium        |
| `statistics` | interquartile means and bootstrap intervals             |
| `solving`    | which policy is kept, and when an environment is solved |
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
