"""Run folders, and the files in them.

| module         | owns                                           |
| -------------- | ---------------------------------------------- |
| `folder`       | one run's folder, written and read             |
| `making`       | where it is, and how it is made                |
| `seeds_folder` | the folder of several seeds' runs              |
| `metrics`      | the rows of metrics.csv                        |
| `metrics_file` | metrics.csv while a run writes it              |
| `system`       | what system.json holds: versions, cores, flags |
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
