"""The catalogue as a person reads it: the list, one entry, and what was measured."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from parity.traps.committed import stated
from parity.traps.entries import KINDS, Entry
from parity.traps.families import FAMILIES, catalogue, entry
from parity.traps.results import NEEDED, Result, measured
from parity.traps.rule import STATED

WIDTH = 100
LONGEST = 68
"""Characters of a value that is shown in one line with another."""


def listed() -> str:
    """Every entry with its number and title, by family."""
    lines = []
    for letter, (about, _) in FAMILIES.items():
        lines.append(f"{letter}  {about}")
        for each in catalogue().values():
            if each.family == letter:
                mark = "" if each.kind == "trap" else f" ({each.kind})"
                lines.append(f"  {each.id}  {each.named}{mark}")
        lines.append("")
    lines += [f"{kind:9}  {meaning}" for kind, meaning in KINDS.items()]
    return "\n".join([*lines, "parity traps show ID explains one, parity traps run measures all."])


def show(id: str) -> str:
    """One entry: why, the code of both sides, what they give here, and the same of its remedy.

    Raises:
        UsageError: If there is no such entry.
        ModuleNotFoundError: If a framework is not installed.
    """
    found = entry(id)
    for name in NEEDED:
        __import__(name)
    return shown(found, measured(found))


def shown(found: Entry, result: Result) -> str:
    """An entry and its result."""
    source = found.source
    lines = [f"{found.id}  {found.named}", f"{result.kind}: {KINDS[result.kind]}", ""]
    lines += [found.explanation, ""]
    if source.before:
        lines += [textwrap.indent(source.before, "    "), ""]
    lines += _sides(source.sides, result.values)
    lines += [f"-> {result.reason or stated(result.verdict, None)}", ""]
    lines += textwrap.wrap(f"remedy: {found.remedy}", WIDTH, subsequent_indent="        ")
    if source.mended:
        lines += ["", *_sides(source.mended, result.mended)]
        if result.remedy_holds is not None:
            lines.append("-> agree" if result.remedy_holds else "-> THE REMEDY DOES NOT HOLD")
    rule = textwrap.wrap(f"Two values agree {STATED}.", WIDTH)
    return "\n".join([*lines, "", *rule, f"The code is that of {found.place}."])


def _sides(code: Mapping[str, str], values: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, text in code.items():
        first, *rest = textwrap.dedent(text).splitlines()
        lines.append(f"{name}: {first}")
        lines += [f"    {line}" for line in rest]
        if name in values:
            lines.append(f"    = {value(values[name], longest=4 * WIDTH)}")
    return lines


def value(found: Any, longest: int = LONGEST) -> str:
    """A value in a line."""
    if isinstance(found, Mapping) and [*found] == [str(place) for place in range(len(found))]:
        text = ", ".join(str(each) for each in found.values())
    elif isinstance(found, Mapping):
        text = ", ".join(f"{name} {value(each)}" for name, each in found.items())
    elif isinstance(found, Sequence) and not isinstance(found, str):
        text = f"[{', '.join(value(each) for each in found)}]"
    else:
        text = str(found)
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def line(result: Result) -> str:
    """A result in a line: number, verdict, title; below it what is not as it claims."""
    words = stated(result.verdict, result.remedy_holds)
    found = catalogue()[result.id]
    text = f"{result.id}  {words:28}  {found.named}"
    if result.ok:
        return text
    reason = f": {result.reason}" if result.reason else ""
    return f"{text}\n     NOT as {_article(result.kind)} should be{reason}"


def _article(kind: str) -> str:
    return f"an {kind}" if kind[0] == "a" else f"a {kind}"
