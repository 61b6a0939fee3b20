"""What the commands of `pgjax` and `pgtorch` do.

| module                   | owns                                                 |
| ------------------------ | ---------------------------------------------------- |
| `training`, `resuming`   | the commands `train` and `resume`                    |
| `evaluating`, `plotting` | the commands `eval` and `plot`                       |
| `framework`              | what they need of a framework                        |
| `endings`                | what is said when a run has ended, and the exit code |
| `parsing`                | numbers as a person writes them                      |
| `progress`               | the line that shows how far a run is                 |
| `process`                | the signals and the streams of a command             |
"""
