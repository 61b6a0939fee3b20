"""The command `parity traps`: the list of them, one explained, all measured."""

import json
import time
from dataclasses import dataclass, field
from typing import Annotated, Any

import tyro

from parity.traps.families import catalogue
from parity.traps.text import line, listed
from parity.workers import Counted


@dataclass(frozen=True)
class ListTraps:
    """Every entry with its number and title."""

    json: bool = False
    """Print one JSON object instead of a text."""

    def run(self) -> int:
        """Prints the list."""
        names = ("id", "kind", "title", "remedy", "before")
        rows = [{n: getattr(each, n) for n in names} for each in catalogue().values()]
        print(json.dumps({"traps": rows}) if self.json else listed())
        return 0


@dataclass(frozen=True)
class ShowTrap:
    """Explain one entry: the code of both sides, and what they give here."""

    id: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="ID")]
    """Its number, B01 say."""

    def run(self) -> int:
        """Prints it."""
        from parity.traps.text import show

        print(show(self.id))
        return 0


@dataclass(frozen=True)
class RunTraps:
    """Measure entries here, and say what has moved since the committed table."""

    only: Annotated[str | None, tyro.conf.arg(metavar="ID,...")] = None
    """Only these: numbers, or letters of families."""
    json: bool = False
    """Print one JSON object instead of a text."""

    def run(self) -> int:
        """Measures, and returns the exit code: 1 if a verdict or a remedy has moved."""
        from parity.traps.committed import is_of_installed, moved, nearest
        from parity.traps.results import run

        only = None if self.only is None else [id.strip() for id in self.only.split(",")]
        started, done = time.perf_counter(), Counted("entries measured")
        results = run(only, tell=lambda result: done.tell(result.id))
        done.clear()
        seconds = time.perf_counter() - started
        table = nearest()
        moves = moved(results, table)
        if self.json:
            found: dict[str, Any] = {
                "ok": not moves,
                "seconds": round(seconds, 1),
                "table": table.name,
                "table_is_of_installed": is_of_installed(table),
                "moved": [move._asdict() for move in moves],
                "results": [result.plain() for result in results.values()],
            }
            print(json.dumps(found))
        else:
            print(*(line(result) for result in results.values()), sep="\n")
            other = "" if is_of_installed(table) else ", the nearest to what is installed"
            print(f"\n{len(results)} measured in {seconds:.0f} s; committed table{other}: {table}")
            print(*(moves or ["nothing has moved"]), sep="\n")
        return 1 if moves else 0


@dataclass(frozen=True)
class Traps:
    """Where PyTorch and JAX differ: list them, explain one, measure all on what is installed."""

    action: Annotated[
        Annotated[ListTraps, tyro.conf.subcommand("list")]
        | Annotated[ShowTrap, tyro.conf.subcommand("show")]
        | Annotated[RunTraps, tyro.conf.subcommand("run")],
        tyro.conf.OmitSubcommandPrefixes,
    ] = field(default_factory=ListTraps)

    def run(self) -> int:
        """Does it and returns the exit code."""
        return self.action.run()
