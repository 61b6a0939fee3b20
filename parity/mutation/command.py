"""The command `parity power -- pytest …`."""

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from parity.mutation.kinds import chosen_kinds
from parity.mutation.mutations import Mutation
from parity.mutation.power import Power, first_run, remembered, save, tried
from parity.mutation.processes import Processes
from parity.mutation.report import as_json, as_text
from parity.mutation.targets import require_there, sample, targets
from pgcore.commands.process import listening
from pgcore.commands.progress import Status, progress
from pgcore.errors import UsageError, is_real, require, require_seed
from pgcore.files.writing import write_atomically


@dataclass(frozen=True)
class PowerCommand:
    """Run a test command on small wrong variants of your own functions, and see which survive."""

    command: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="-- COMMAND ...")
    ]
    """What you type to run your tests, after --: pytest -q tests, or python check.py."""
    of: Annotated[tuple[str, ...], tyro.conf.arg(metavar="MODULE[:FUNCTION] ...")] = ()
    """What is mutated: port.losses, port.losses:td_error, src/port/losses.py. By default every
    function below this folder, outside of tests, that the command calls."""
    kinds: Annotated[str | None, tyro.conf.arg(metavar="KIND,...")] = None
    """Only these kinds of mistakes: operators, off-by-one, branches, axes, reductions, arguments,
    calls, keywords, constants."""
    max: int | None = None
    """At most so many mutants, drawn from all with the seed."""
    seed: int = 0
    """Of that draw."""
    jobs: int = 1
    """Commands that run at a time, all of them in this folder."""
    timeout: Annotated[float, tyro.conf.arg(metavar="FACTOR")] = 5.0
    """The clock stops a command after so many times the seconds of its first run (5 at least)."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("parity-power")
    """The folder of power.json, from which another run goes on."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write what was found as JSON, survivors with their diffs."""
    fresh: bool = False
    """Forget what is known from an earlier run."""

    def run(self) -> int:
        """Tries the mutants, prints the report and returns the exit code: 1 if one survived."""
        kinds = chosen_kinds(self._kinds())
        self._require_usable()
        root, started = Path.cwd().resolve(), time.perf_counter()
        require_there(self.of, root)
        processes = Processes(self.command)
        file = self.out / "power.json"
        try:
            with listening():
                power = self._power(processes, file, root)
                found = targets(self.of, kinds, power.watched, root)
                found = sample(found, self.max, self.seed)
                if not found:
                    raise UsageError(
                        "there is nothing to mutate: no function outside of tests is called that "
                        "has such a mistake to make; name one with --of"
                    )
                self._try_all(processes, power, found, root, file)
        except KeyboardInterrupt as stop:
            processes.stop()
            how = str(stop) or "interrupted"
            raise type(stop)(f"{how}; the same command goes on from here") from None
        seconds = time.perf_counter() - started
        outcomes = [power.outcomes[mutation.id] for mutation in found]
        if self.json is not None:
            table = as_json(self.command, found, outcomes, seconds)
            write_atomically(self.json, (json.dumps(table, indent=1) + "\n").encode())
        print(as_text(found, outcomes, seconds, power.scripts))
        return 0 if all(each["outcome"] in ("killed", "timed out") for each in outcomes) else 1

    def _power(self, processes: Processes, file: Path, root: Path) -> Power:
        power, why = (None, "") if self.fresh else remembered(file, self.command)
        if why:
            _say(why)
        if power is None:
            _say(f"first on your code as it is: {' '.join(self.command)}")
            power = first_run(processes, self.command, root)
            _say(f"it passes, in {power.seconds:.1f} s")
            self.out.mkdir(parents=True, exist_ok=True)
            save(file, power)
        return power

    def _try_all(
        self, processes: Processes, power: Power, found: list[Mutation], root: Path, file: Path
    ) -> None:
        known = sum(mutation.id in power.outcomes for mutation in found)
        earlier = f", {known} of them known from an earlier run" if known else ""
        _say(f"{len(found)} mutants{earlier}")
        if self.jobs > 1:
            _say(f"{self.jobs} commands share this folder: tests must not write to the same files")
        num_done = known
        with progress(len(found)) as shown:
            for mutation, outcome in tried(
                processes, power, found, root, jobs=self.jobs, factor=self.timeout
            ):
                power.outcomes[mutation.id] = outcome
                save(file, power)
                num_done += 1
                text = f"{num_done} of {len(found)}  {outcome['outcome']}: {mutation.function}"
                status = Status(num_done, f"{text}, {mutation.summary}", text[:60])
                shown.update(lambda status=status: status)

    def _kinds(self) -> list[str] | None:
        if self.kinds is None:
            return None
        return [kind.strip() for kind in self.kinds.split(",") if kind.strip()]

    def _require_usable(self) -> None:
        if not self.command:
            raise UsageError("there is no command; write it after --: parity power -- pytest -q")
        require(self.max is None or self.max >= 1, "max", self.max, "a number of mutants from 1")
        require(self.jobs >= 1, "jobs", self.jobs, "a number of commands from 1")
        good = is_real(self.timeout) and self.timeout >= 1
        require(good, "timeout", self.timeout, "a factor of at least 1")
        require_seed(self.seed)
        if self.out.exists() and not self.out.is_dir():
            raise UsageError(f"out is {str(self.out)!r}, which is a file; name a folder")
        if self.json is not None and not self.json.parent.is_dir():
            raise UsageError(f"json is {str(self.json)!r}, whose folder does not exist")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
