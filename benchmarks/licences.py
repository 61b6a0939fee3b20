"""Lists the licences of all that an installation brings along, as the packages themselves say.

python -m benchmarks.licences            # prints the table
python -m benchmarks.licences --save     # puts it in docs/licences.md
"""

import importlib.metadata
import re
import sys
from collections.abc import Iterable

from packaging.requirements import Requirement

from benchmarks import results

PAGE, NAME = "docs/licences.md", "licences"
PROJECT = "policy-gradient-parity"
EXTRAS = ("torch", "parity", "report")
"""Extras that users install; `dev` is for those who work on the project."""
HEADER = ("package", "licence", "with")


def found() -> dict[str, tuple[str, str]]:
    """Licence and extra of each installed package that a user's installation has, by name."""
    packages: dict[str, tuple[str, str]] = {}
    for extra in ("", *EXTRAS):
        waiting = [f"{PROJECT}[{extra}]" if extra else PROJECT]
        while waiting:
            requirement = Requirement(waiting.pop())
            name = _normal(requirement.name)
            try:
                package = importlib.metadata.distribution(name)
            except importlib.metadata.PackageNotFoundError:  # for another system or Python
                continue
            if name != PROJECT:
                if name in packages:
                    continue
                packages[name] = _licence(package.metadata), f"[{extra}]" if extra else ""
            waiting += _required(package.requires or (), requirement.extras)
    return dict(sorted(packages.items()))


def table() -> str:
    """The table of the page."""
    return results.table(HEADER, [[name, *about] for name, about in found().items()])


def _required(requires: Iterable[str], extras: Iterable[str]) -> list[str]:
    """What a package needs here, with its extras."""
    needed = []
    for text in requires:
        marker = Requirement(text).marker
        if marker is None or any(marker.evaluate({"extra": e}) for e in ("", *extras)):
            needed.append(text.partition(";")[0])
    return needed


def _licence(metadata: importlib.metadata.PackageMetadata) -> str:
    """What a package says, shortest form first: an SPDX expression, classifiers, a line of text."""
    fields = metadata.json
    if expression := fields.get("license_expression"):
        return str(expression)
    classifiers = [each for each in fields.get("classifier", ()) if each.startswith("License ::")]
    if named := [each.rpartition(" :: ")[2] for each in classifiers]:
        return ", ".join(sorted(named))
    return str(fields.get("license", "not stated")).strip().splitlines()[0]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    if "--save" in sys.argv[1:]:
        results.put_table(PAGE, NAME, table())
    else:
        print(table())
