"""The folder of several seeds' runs: its table while they train, its runs afterwards.

It holds `config.json` (the first seed's), `system.json`, `seeds.csv` (a line a seed) and
`seed-<N>/`, a run folder, for each.
"""

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pgcore.config import TrainConfig
from pgcore.errors import RunError, UsageError
from pgcore.files.reading import open_file
from pgcore.files.sealed_json import to_json
from pgcore.files.sums import read_sums
from pgcore.files.writing import write_atomically
from pgcore.runs.folder import CONFIG, RESULT, SEEDS, SYSTEM, RunFolder, has_seeds, read_table
from pgcore.runs.making import make_folder
from pgcore.runs.metrics import lines_of
from pgcore.runs.system import system

SEEDS_COLUMNS: tuple[str, ...] = (
    "seed",
    "ended",
    "env_steps",
    "episodes",
    "updates",
    "seconds",
    "kept_update",
    "evaluation_return",
)
"""Its columns. All but the seed are empty while a seed's run goes on. `seconds` is since the seed's
run began: that of all seeds, where they are trained at once."""


class SeedsFolder:
    """The folder of many seeds' runs, with a table that has a line for each.

    Without a path there is no folder, and nothing is written.
    """

    def __init__(self, path: Path | None, seeds: Sequence[int]) -> None:
        self._path = path
        self._lines: dict[int, dict[str, object]] = {seed: {"seed": seed} for seed in seeds}

    @classmethod
    def create(cls, config: TrainConfig, seeds: Sequence[int], framework: str) -> "SeedsFolder":
        """Makes the folder `config.run_dir`, if that is set, for these seeds.

        Raises:
            UsageError: The folder exists, or it cannot be made.
        """
        path = None if config.run_dir is None else Path(config.run_dir)
        folder = cls(path, seeds)
        if path is not None:
            first = replace(config, seed=seeds[0])
            about = system(framework) | {"seeds": [str(seed) for seed in seeds]}
            files = {CONFIG: to_json(first.to_dict()), SYSTEM: to_json(about)}
            make_folder(path, files | {SEEDS: folder._table()})
        return folder

    def note(self, seed: int) -> None:
        """Enters how a seed's run ended, as its own folder says, if it has begun at all."""
        if self._path is None or not (path := self._path / f"seed-{seed}" / RESULT).exists():
            return
        result = json.loads(path.read_text())
        self._lines[seed] |= {name: result[name] for name in SEEDS_COLUMNS if name in result}
        self._lines[seed] |= {"evaluation_return": (result["evaluation"] or {}).get("mean_return")}
        try:
            write_atomically(self._path / SEEDS, self._table())
        except OSError as error:
            table = str(self._path / SEEDS)
            raise RunError(f"{table!r} cannot be written: {error.strerror or error}") from error

    def _table(self) -> bytes:
        text = io.StringIO()
        table = csv.DictWriter(text, SEEDS_COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(self._lines.values())
        return text.getvalue().encode()


def open_runs(path: Path) -> list[RunFolder]:
    """Opens a run folder, or each `seed-N` in a folder of several seeds, in order of N.

    Raises:
        UsageError: It is neither, or a configuration cannot be read.
    """
    if not has_seeds(path):
        return [RunFolder.open(path)]
    numbered = {
        int(match[1]): folder
        for folder in path.iterdir()
        if (match := re.fullmatch(r"seed-(\d+)", folder.name))
    }
    if not numbered:
        raise UsageError(f"{str(path)!r} has a {SEEDS}, but no folder seed-N")
    return [RunFolder.open(folder) for _, folder in sorted(numbered.items())]


def open_begun(path: Path, file: str) -> tuple[list[RunFolder], list[str]]:
    """The runs in a folder of several seeds that have `file`, and the seeds that lack it.

    A seed that was stopped before its first update, or never began, has neither policy nor metrics.

    Raises:
        UsageError: No seed has it, or a configuration cannot be read.
    """
    runs = []
    for run in open_runs(path):
        if (run.path / file).exists():
            runs.append(run)
        elif (run.path / RESULT).exists() and file in read_sums(run.path):
            raise UsageError(f"{str(run.path / file)!r} is missing: the run left one")
    if not runs:
        raise UsageError(f"no seed in {str(path)!r} has a {file}: no first update is done")
    seeds = _read_seeds(path)
    begun = {str(run.config.seed) for run in runs}
    return runs, [seed for seed in seeds if seed not in begun]


def _read_seeds(path: Path) -> list[str]:
    """The seeds that a folder of several is of.

    Raises:
        UsageError: seeds.csv cannot be read, or its seeds are not those that the runs began with.
    """
    try:
        with open_file(path / SEEDS) as file:
            seeds = [line["seed"] for line in csv.DictReader(lines_of(file))]
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise UsageError(f"{str(path / SEEDS)!r} cannot be read: {error}") from error
    begun = read_table(path / SYSTEM).get("seeds", seeds)
    if begun != seeds:
        raise UsageError(
            f"{str(path / SEEDS)!r} or {str(path / SYSTEM)!r} is damaged: "
            f"one has the seeds {', '.join(map(str, seeds))}, the other has others"
        )
    return seeds
