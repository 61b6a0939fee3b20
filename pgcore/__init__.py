"""The framework-free base that `pgjax` and `pgtorch` share: configuration, the host loop's
bookkeeping, run folders and their file schema, Gymnasium, evaluation, the command line.

From the top, each imports only from those below it, which a test holds:

| part          | is about                                                          |
| ------------- | ----------------------------------------------------------------- |
| `cli`         | the command line                                                  |
| `commands/`   | what `train`, `resume`, `eval` and `plot` do                      |
| `plots/`      | learning curves, as numbers and as pictures                       |
| `training/`   | the loop of one run and of many seeds: counting, saving, going on |
| `checkpoints` | all that a run needs to go on                                     |
| `runs/`       | run folders and the files in them                                 |
| `evaluation/` | what a policy is worth, and when an environment is solved         |
| `envs/`       | Gymnasium's environments, none of which is trusted                |
| `files/`      | files, written whole or not at all, and read as a stranger's      |
| `config`      | `TrainConfig`                                                     |
| `agents`      | what each agent is: its noise, its layers                         |
| `errors`      | what is said of bad input, and of a run that failed               |
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
