"""CartPole-v1 from a cold process to solved: this project and its peers, side by side.

    python -m benchmarks.peers                       # 9 seeds of each, a table
    python -m benchmarks.peers --only sb3-ppo rejax-ppo --seeds 1
    python -m benchmarks.peers --save                # keeps figures, picture and table
    python -m benchmarks.peers --recorded --save     # picture and table of the kept figures

A run is a process, and its seconds are those from its start to its exit, imports, compilation and
evaluations included. Seed 0 of all comes first, then seed 1 of all, so that what else the machine
does hits all alike. A peer runs in a virtual environment of its own, made under `--folder` from
the versions in `benchmarks/peers_code/*.txt`. One rule of "solved" holds for all
(`peers_code/rule.py` has it for the peers); `NOTES` says where it is not quite the same.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks import results
from benchmarks.peers_code.picture import draw
from benchmarks.peers_code.runs import PEERS, Measured, Peer, measure, versions, warm_up
from benchmarks.peers_code.table import table

PAGES, NAME = ("README.md", "docs/speed.md"), "peers"
CODE = Path(__file__).parent / "peers_code"
NOTES = """\
Seconds are a whole process's, from start to exit: imports, compilation, training and evaluations.
Solved: the last 100 training episodes average at least 475, and so do 100 fresh episodes with
actions drawn as in training. rejax shows no training episodes: of it the fresh episodes alone are
asked, every 5,000 steps, which is the weaker rule. Ours asks it of the kept policy, the peers of
the policy as it is after an update. Steps a second are those after the first update, so without
compilation; evaluations, of which ours come more often, are left out for the peers only. "Warm":
an earlier run of another seed has left its compiled programs in JAX's cache."""
"""What has to stand below the table."""


@dataclass(frozen=True)
class Peers:
    """Measure how long a cold process takes to solve CartPole-v1."""

    only: tuple[str, ...] = ()
    """Measure these alone, by the names that `--only x` lists."""
    seeds: int = 9
    """Seeds of each, from 0 up."""
    limit: float = 75.0
    """Seconds after which a run is stopped."""
    folder: Path = Path(".peers")
    """Where the peers' virtual environments are, or are made."""
    save: bool = False
    """Keep figures and picture under benchmarks/results/, and put the table in the pages."""
    recorded: bool = False
    """Take the kept figures instead of measuring."""


def main(options: Peers) -> None:
    """Measures, prints the table, and keeps it if it is to."""
    if options.save:
        for page in PAGES:
            results.table_in(page, NAME)  # rather now than after an hour
        if options.only:
            raise SystemExit("--save keeps a whole run: leave out --only")
    if options.recorded:
        figures = results.load(NAME)
    else:
        figures = figures_of(_asked_for(options.only), options)
    runs = [Measured(**run) for run in figures["runs"]]
    print(f"\n{table(runs, figures['limit'])}\n\n{NOTES}")
    if not options.save:
        return
    if not options.recorded:
        command = f"python -m benchmarks.peers --seeds {options.seeds} --save"
        results.save(NAME, command, figures)
    draw(runs, figures["limit"], results.RESULTS / f"{NAME}.png")
    for page in PAGES:
        results.put_table(page, NAME, table(runs, figures["limit"]))


def figures_of(peers: list[Peer], options: Peers) -> dict:
    """Measures these peers."""
    pythons = {
        name: Path(sys.executable) if name is None else python_of(name, options.folder)
        for name in dict.fromkeys(peer.environment for peer in peers)
    }
    runs = []
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        for peer in peers:
            warm_up(peer, pythons[peer.environment], scratch)
        for seed in range(options.seeds):
            for peer in peers:
                run = measure(peer, seed, pythons[peer.environment], scratch, options.limit)
                print(json.dumps(run._asdict()), flush=True)
                runs.append(run._asdict())
    found = {name or "ours": versions(name, python) for name, python in pythons.items()}
    return {"limit": options.limit, "versions": found, "runs": runs}


def python_of(name: str, folder: Path) -> Path:
    """The Python of a peer's environment, which is made unless it is there with these versions."""
    requirements = CODE / f"{name}.txt"
    made, stamp = folder.absolute() / name, folder.absolute() / name / "made-of"
    python = made / "bin" / "python"
    wanted = requirements.read_text(encoding="utf-8")
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
        print(f"making the environment {name}", flush=True)
        shutil.rmtree(made, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(made)], check=True)
        # All is pinned; as constraints too, so that nothing brings along another build of torch.
        pinned = ["--requirement", str(requirements), "--constraint", str(requirements)]
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *pinned], check=True)
        stamp.write_text(wanted, encoding="utf-8")
    return python


def _asked_for(names: tuple[str, ...]) -> list[Peer]:
    known = {peer.name: peer for peer in PEERS}
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(f"--only {' '.join(unknown)}: no such peer; there are {', '.join(known)}")
    return [known[name] for name in names] or [*PEERS]


if __name__ == "__main__":
    main(tyro.cli(Peers))
