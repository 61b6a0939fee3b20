"""The results of a run as one plain page, that needs no other file and reads without its style."""

import html
from typing import Any

from parity.plugin.results import describe_worst, summary

MOST_MISMATCHES = 20
"""Of one report on the page. The JSON has them all."""
FACTS = ("reference", "candidate", "oracle", "error", "bound")


def page(found: dict[str, Any]) -> str:
    """The page for what `--parity-json` writes."""
    tests = found["tests"]
    failed = [test for test in tests if test["report"] or test["no_script"]]
    return PAGE.format(
        summary=html.escape(summary(tests) if tests else "parity: no test used the fixture"),
        versions=html.escape(
            ", ".join(
                f"{name} {version or 'not installed'}"
                for name, version in found["versions"].items()
            )
        ),
        rows="\n".join(map(_row, tests)),
        failures="\n".join(map(_failure, failed)),
    )


def _row(test: dict[str, Any]) -> str:
    worst = describe_worst(test["worst"]) if test["worst"] else ""
    name = html.escape(test["nodeid"])
    if test["report"]:
        name = f'<a href="#{html.escape(_anchor(test))}">{name}</a>'
    cells = [str(test["checks"]), str(test["differing"]), worst]
    rest = "".join(f"<td>{html.escape(cell)}" for cell in cells)
    kind = " class=bad" if test["outcome"] in ("failed", "error") else ""
    return f"<tr{kind}><td>{name}<td>{html.escape(test['outcome'])}{rest}</tr>"


def _failure(test: dict[str, Any]) -> str:
    report, escape = test["report"], html.escape
    lines = [f'<h2 id="{escape(_anchor(test))}">{escape(test["nodeid"])}</h2>']
    if test["script"]:
        lines.append(f"<p>Reproduce: <code>python {escape(test['script'])}</code></p>")
    elif test["no_script"]:
        lines.append(f"<p>No program repeats it: {escape(test['no_script'])}</p>")
    verdict = "the same" if report["ok"] else "NOT the same"
    lines.append(f"<p>{escape(report['name'])}: {verdict}</p>")
    lines += [f"<p>{escape(note)}</p>" for note in report["notes"]]
    lines += map(_mismatch, report["failures"][:MOST_MISMATCHES])
    if (more := len(report["failures"]) - MOST_MISMATCHES) > 0:
        lines.append(f"<p>and {more} more</p>")
    return "\n".join(lines)


def _mismatch(mismatch: dict[str, Any]) -> str:
    at = mismatch["index"] or ""
    place = f"{mismatch['stage']}: {mismatch['leaf']}{at} in {mismatch['dtype']}"
    facts = [
        f"<tr><th>{name}<td>{html.escape(str(mismatch[name]))}</tr>"
        for name in FACTS
        if mismatch[name] is not None
    ]
    return f"<h3>{html.escape(place)}</h3>\n<table>{''.join(facts)}</table>"


def _anchor(test: dict[str, Any]) -> str:
    return test["nodeid"].replace(" ", "-")


PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{summary}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem }}
table {{ border-collapse: collapse; font-size: 14px }}
th, td {{ text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0 }}
th, td {{ border-bottom: 1px solid #ddd; overflow-wrap: anywhere }}
.bad td {{ background: #fdecea }}
h1 {{ font-size: 1.3rem }} h2 {{ font-size: 1.1rem; margin-top: 2rem }} h3 {{ font-size: 1rem }}
</style></head><body>
<h1>{summary}</h1>
<p>{versions}</p>
<table><thead><tr><th>test<th>outcome<th>checks<th>not the same<th>closest to its bound</tr></thead>
<tbody>
{rows}
</tbody></table>
{failures}
</body></html>
"""
