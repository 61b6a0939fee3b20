"""The host side of training, the same for both frameworks.

| module        | owns                                                     |
| ------------- | -------------------------------------------------------- |
| `loop`        | the loop of one run                                      |
| `seeds`       | the loop of many seeds at once                           |
| `bookkeeping` | what a run has counted and kept                          |
| `saving`      | what it writes into its folder meanwhile, and at its end |
| `reopening`   | opening a folder to go on from its newest checkpoint     |
"""
