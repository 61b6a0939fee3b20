"""Measures the catalogue of traps on the installed versions: a table of them all.

    python -m benchmarks.traps                  # the table, and what has moved
    python -m benchmarks.traps --save newest    # keeps it, and writes the tables of docs/traps.md

What is kept is a part of the package, `parity/traps/tables/`: `newest` is measured with the newest
versions that the project accepts, `pinned` with those of constraints.txt, `lowest` with the lowest
that it accepts. `benchmarks.environments` makes an environment of each kind. The page shows the
values of the newest, and where another table has another verdict.
"""

import json
from dataclasses import dataclass

import tyro

from benchmarks import results
from parity import traps
from parity.traps.committed import Name, Table, as_table, stated, tables
from parity.traps.families import FAMILIES, catalogue
from parity.traps.text import value

PAGE = "docs/traps.md"
FOLDER = results.ROOT / "parity" / "traps" / "tables"
HEADER = ("id", "trap", "what each side gives", "found", "how to agree")
LONGEST = 90
"""Characters of a side's value in the table."""


@dataclass(frozen=True)
class Measure:
    """Measure every entry of the catalogue."""

    save: Name | None = None
    """Keep the results under this name, and write the page."""


def versions_table() -> str:
    """The versions that the committed tables were measured with, and the entries of each kind."""
    known = [*tables().values()]
    rows = [[name, *(each.versions[name] for each in known)] for name in known[0].versions]
    for verdict in ("differ, mended", "differ", "both NaN, mended", "agree"):
        counts = (sum(_found(each, id) == verdict for id in each.results) for each in known)
        rows.append([f"entries: {verdict}", *map(str, counts)])
    return results.table(["", *(each.name for each in known)], rows)


def family_table(letter: str) -> str:
    """The entries of a family, with the values of the newest versions."""
    newest = tables()["newest"]
    rows = []
    for each in catalogue().values():
        if each.family == letter and each.id in newest.results:
            sides = newest.results[each.id]["values"]
            values = "; ".join(f"{name}: {value(v, LONGEST)}" for name, v in sides.items())
            rows.append([each.id, each.named, values, verdicts(each.id), each.remedy])
    return results.table(HEADER, [[_escaped(cell) for cell in row] for row in rows])


def verdicts(id: str) -> str:
    """What was found of an entry with the newest versions, and with the others where it differs."""
    by_words: dict[str, list[str]] = {}
    for name, table in tables().items():
        by_words.setdefault(_found(table, id), []).append(name)
    (newest, _), *others = by_words.items()
    other = "; ".join(f"{', '.join(names)}: {words}" for words, names in others)
    return f"{newest} ({other})" if other else newest


def _found(table: Table, id: str) -> str:
    result = table.results.get(id)
    return stated(result["verdict"], result["remedy_holds"]) if result else "not in the table"


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;").replace("_", "\\_")


def put_tables() -> None:
    """Writes the page's tables from the committed ones."""
    results.put_table(PAGE, "traps: versions", versions_table())
    for letter in FAMILIES:
        results.put_table(PAGE, f"traps: {letter}", family_table(letter))


def main(options: Measure) -> None:
    """Measures, prints, and keeps what was measured if it is to."""
    found = traps.run()
    if options.save is None:
        for result in found.values():
            print(result.id, stated(result.verdict, result.remedy_holds), result.values)
        print(*(traps.moved(found) or ["nothing has moved"]), sep="\n")
        return
    FOLDER.mkdir(exist_ok=True)
    text = json.dumps(as_table(found), indent=1, ensure_ascii=False)
    (FOLDER / f"{options.save}.json").write_text(text + "\n", encoding="utf-8")
    tables.cache_clear()
    put_tables()


if __name__ == "__main__":
    main(tyro.cli(Measure))
