"""Gymnasium's environments, none of which is trusted.

| module        | owns                                                      |
| ------------- | --------------------------------------------------------- |
| `gym`         | an environment's spaces; whole episodes, started together |
| `one_episode` | one copy that plays one episode and rests                 |
| `deadline`    | the time limit on a call of an environment                |
| `faults`      | what an environment did, at which step of which episode   |
"""
