"""The command `parity selftest`."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from parity.workers import Counted, default_jobs

if TYPE_CHECKING:
    from parity.mutants.power import Outcome


@dataclass(frozen=True)
class Selftest:
    """Put known wrong variants in the place of our code, and see that the suite catches them."""

    only: Annotated[str | None, tyro.conf.arg(metavar="NAME,...")] = None
    """Only these variants."""
    json: bool = False
    """Print one JSON object instead of a table."""
    jobs: int = field(default_factory=default_jobs)
    """Processes that share the work."""

    def run(self) -> int:
        """Runs them, prints what was caught where, and returns the exit code: 1 if one was not."""
        from parity.mutants.power import selftest

        started = time.perf_counter()
        only = [name.strip() for name in (self.only or "").split(",") if name.strip()]
        done = Counted("variants tried")
        found = selftest(only, jobs=self.jobs, tell=lambda outcome: done.tell(outcome.name))
        done.clear()
        seconds = time.perf_counter() - started
        print(json.dumps(as_json(found, seconds)) if self.json else as_text(found, seconds))
        return 0 if all(outcome.ok for outcome in found) else 1


def as_text(found: Sequence["Outcome"], seconds: float) -> str:
    """A line for each variant, then what should not be."""
    as_is, *variants = found
    width = max(len(outcome.name) for outcome in found)
    lines = [f"{'variant':{width}}  caught at", f"{as_is.name:{width}}  {_verdict(as_is)}"]
    lines += [f"{each.name:{width}}  {_verdict(each)}" for each in variants]
    for outcome in found:
        if not outcome.ok and outcome.mismatch is not None:
            lines += ["", f"{outcome.name} should pass:", f"  {outcome.mismatch}"]
    equivalents = [each for each in variants if each.equivalent]
    if equivalents:
        lines += ["", "equivalent, since"]
        lines += [f"{each.name:{width}}  {each.proof}" for each in equivalents]
    wrong = [each for each in variants if not each.equivalent]
    num_caught = sum(each.caught for each in wrong)
    num_passed = sum(not each.caught for each in equivalents)
    caught = f"{num_caught} of {len(wrong)} wrong variants caught"
    passed = f"{num_passed} of {len(equivalents)} equivalent ones passed"
    lines += ["", f"{caught}, {passed}, in {seconds:.0f} s"]
    return "\n".join(lines)


def as_json(found: Sequence["Outcome"], seconds: float) -> dict[str, Any]:
    """What a machine reads; the packages as they are go into `ok` and are no variant."""
    return {
        "ok": all(outcome.ok for outcome in found),
        "seconds": round(seconds, 1),
        "variants": [
            {
                "name": outcome.name,
                "kind": outcome.kind,
                "equivalent": outcome.equivalent,
                "caught": outcome.caught,
                "stage": outcome.stage or None,
                "raised": outcome.raised,
                "first": None if outcome.mismatch is None else str(outcome.mismatch),
                "proof": outcome.proof,
            }
            for outcome in found[1:]
        ],
    }


def _verdict(outcome: "Outcome") -> str:
    if outcome.caught:
        return f"{'' if outcome.ok else 'WRONGLY '}{outcome.stage}"
    return "passes" if outcome.ok else "NOT CAUGHT"
