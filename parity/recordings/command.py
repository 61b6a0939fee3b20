"""The commands `parity diff` and `parity recording`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from pgcore.commands.parsing import parse_pairs
from pgcore.errors import UsageError, printable
from pgcore.files.writing import write_atomically

File = Annotated[Path | None, tyro.conf.arg(metavar="FILE")]


@dataclass(frozen=True)
class Diff:
    """Hold one recording of parity.record against another. Needs neither framework."""

    reference: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="REFERENCE")]
    """The recording that sets the yardstick."""
    candidate: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="CANDIDATE")]
    """The recording that is judged."""
    json: File = None
    """Write the report as a JSON object."""
    html: File = None
    """Write the report as a page that needs no other file."""
    expect_nonfinite: Annotated[str | None, tyro.conf.arg(metavar="STAGE/OUTPUT,...")] = None
    """Outputs that may hold values which are not finite, in the same places on both sides."""
    rename: Annotated[str | None, tyro.conf.arg(metavar="REFERENCE=CANDIDATE,...")] = None
    """Inputs, outputs and stages that the candidate calls otherwise: obs=x,loss/total=sum."""

    def run(self) -> int:
        """Prints the report and returns the exit code: 1 if the two differ."""
        from parity.recordings.comparing import compare

        expected = [name.strip() for name in (self.expect_nonfinite or "").split(",")]
        report = compare(
            self.reference,
            self.candidate,
            rename={} if self.rename is None else parse_pairs("rename", self.rename, "obs=x"),
            expect_nonfinite=[name for name in expected if name],
        )
        for file in (self.json, self.html):
            if file is None:
                continue
            try:
                if file is self.json:
                    write_atomically(file, report.to_json().encode())
                else:
                    report.to_html(file)
            except OSError as error:
                raise UsageError(f"report {str(file)!r} cannot be written: {error}") from error
        print(printable(str(report)))
        return 0 if report.ok else 1


@dataclass(frozen=True)
class Show:
    """List what is in a recording of parity.record: stages, arrays, source lines, versions."""

    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    """The recording."""

    def run(self) -> int:
        """Prints the list and returns the exit code."""
        from parity.recordings.recording import Recording

        print(printable(str(Recording.load(self.file))))
        return 0
