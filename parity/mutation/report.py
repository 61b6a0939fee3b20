"""What `parity power` prints: a table by function and kind, then each survivor with its diff."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from parity.mutation.kinds import KINDS
from parity.mutation.mutations import Mutation
from parity.mutation.power import KILLED, NEVER_CALLED, SURVIVED, TIMED_OUT, counts

Outcomes = Sequence[Mapping[str, Any]]


def as_text(
    found: Sequence[Mutation], outcomes: Outcomes, seconds: float, scripts: Collection[str] = ()
) -> str:
    """The table, the survivors, what was never called, and a line of totals."""
    pairs = list(zip(found, (each["outcome"] for each in outcomes), strict=True))
    lines = [*_table(pairs), ""]
    for mutation, outcome in pairs:
        if outcome == SURVIVED:
            title = f"survived: {mutation.file}:{mutation.line} in {mutation.function}"
            lines += [f"{title}, {mutation.kind}: {mutation.summary}", mutation.diff, ""]
    never = {f"{m.function} ({m.file})" for m, outcome in pairs if outcome == NEVER_CALLED}
    lines += [f"never called by the command: {name}" for name in sorted(never)]
    run = {m.file for m, outcome in pairs if outcome == NEVER_CALLED and _is_among(m.file, scripts)}
    lines += [
        f"{file} was run as a script, past Python's imports: what is called in it is seen only if "
        f"the command itself is python {file}, or imports it"
        for file in sorted(run)
    ]
    lines += [""] if never else []
    number = counts(outcomes)
    killed = number[KILLED] + number[TIMED_OUT]
    clock = f" ({number[TIMED_OUT]} by the clock)" if number[TIMED_OUT] else ""
    rest = "".join(f", {number[name]} {name}" for name in (SURVIVED, NEVER_CALLED) if number[name])
    lines.append(f"{killed} of {len(pairs)} mutants killed{clock}{rest}, in {seconds:.0f} s")
    return "\n".join(lines)


def _is_among(file: str, scripts: Collection[str]) -> bool:
    return any(Path(script).as_posix().endswith(f"/{file}") for script in scripts)


def as_json(
    command: Sequence[str], found: Sequence[Mutation], outcomes: Outcomes, seconds: float
) -> dict[str, Any]:
    """What a machine reads."""
    return {
        "command": list(command),
        "seconds": round(seconds, 1),
        "counts": counts(outcomes),
        "mutants": [
            {
                "id": mutation.id,
                "file": mutation.file,
                "line": mutation.line,
                "function": mutation.function,
                "kind": mutation.kind,
                "summary": mutation.summary,
                **outcome,
                **({"diff": mutation.diff} if outcome["outcome"] == SURVIVED else {}),
            }
            for mutation, outcome in zip(found, outcomes, strict=True)
        ],
    }


def _table(pairs: Sequence[tuple[Mutation, str]]) -> list[str]:
    """Killed / all, a row for each function and a column for each kind."""
    kinds = [kind for kind in KINDS if any(m.kind == kind for m, _ in pairs)]
    functions = list(dict.fromkeys((m.file, m.function) for m, _ in pairs))
    rows = [["killed / all", *kinds, "all"]]
    for file, function in functions:
        own = [pair for pair in pairs if (pair[0].file, pair[0].function) == (file, function)]
        rows.append([f"{file}: {function}", *_cells(own, kinds)])
    rows.append(["all", *_cells(pairs, kinds)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]


def _cells(pairs: Sequence[tuple[Mutation, str]], kinds: Sequence[str]) -> list[str]:
    columns = [[pair for pair in pairs if pair[0].kind == kind] for kind in kinds]
    return [
        f"{sum(outcome in (KILLED, TIMED_OUT) for _, outcome in column)}/{len(column)}"
        if column
        else "-"
        for column in (*columns, list(pairs))
    ]
