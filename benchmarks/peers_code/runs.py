"""The peers, and a run of one of them: a process, timed from its start to its exit."""

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Literal, NamedTuple

from benchmarks.results import ROOT

WARMING_SEED = 1_000
"""Of the run that leaves its compiled programs to the warm ones; none of them has it."""
CACHE = "JAX_COMPILATION_CACHE_DIR"
CACHE_ALL = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
"""What a peer's warm run is given beside the cache: JAX leaves out what is compiled quickly."""


class Peer(NamedTuple):
    """Something that trains CartPole-v1."""

    name: str
    words: str
    arguments: tuple[str, ...]
    """After `python -m`; a peer's seed comes last, ours after `--seed`."""
    environment: str | None = None
    """Of `peers_code/<environment>.txt`; None is the project's own."""
    cache: Literal["none", "empty", "warm"] = "none"
    """What it finds in JAX's persistent compilation cache; "none" is that it has none."""


class Measured(NamedTuple):
    """One run."""

    peer: str
    seed: int
    seconds: float
    """Of the whole process."""
    solved: bool
    stopped: bool
    """Whether it reached the limit of seconds."""
    env_steps: int | None
    """Trained on. Of a peer that was stopped it is not known."""
    steps_per_second: float | None
    """Of training after the first update."""


def _train(framework: str, *options: str) -> tuple[str, ...]:
    return (framework, "train", *options, "--json")


_REINFORCE = _train("pgjax", "--agent", "reinforce")
_REPARAM = _train("pgjax", "--agent", "reparam")
_ARTICLE = ("--agent", "reinforce", "--preset", "article", "--learning-rate", "1e-2")
_CODE = "benchmarks.peers_code"
_SBX, _REJAX = (f"{_CODE}.run_sbx",), (f"{_CODE}.run_rejax",)
PEERS = (
    Peer("pgjax-reinforce", "pgjax, reinforce", _REINFORCE, None, "empty"),
    Peer("pgjax-reinforce-warm", "pgjax, reinforce, warm", _REINFORCE, None, "warm"),
    Peer("pgjax-reparam", "pgjax, reparam", _REPARAM, None, "empty"),
    Peer("pgjax-reparam-warm", "pgjax, reparam, warm", _REPARAM, None, "warm"),
    Peer("pgtorch-reinforce", "pgtorch, reinforce", _train("pgtorch", "--agent", "reinforce")),
    Peer("article", "pgtorch, the article's loop", _train("pgtorch", *_ARTICLE)),
    Peer("sb3-ppo", "Stable-Baselines3 PPO", (f"{_CODE}.run_sb3", "ppo"), "sb3"),
    Peer("sb3-a2c", "Stable-Baselines3 A2C", (f"{_CODE}.run_sb3", "a2c"), "sb3"),
    Peer("sbx-ppo", "SBX PPO", _SBX, "sbx"),
    Peer("sbx-ppo-warm", "SBX PPO, warm", _SBX, "sbx", "warm"),
    Peer("rejax-ppo", "rejax PPO", _REJAX, "rejax"),
    Peer("rejax-ppo-warm", "rejax PPO, warm", _REJAX, "rejax", "warm"),
)
OF_INTEREST = {
    None: ("jax", "flax", "optax", "torch", "gymnasium", "numpy"),
    "sb3": ("stable-baselines3", "torch", "gymnasium", "numpy"),
    "sbx": ("sbx-rl", "stable-baselines3", "torch", "jax", "flax", "gymnasium", "numpy"),
    "rejax": ("rejax", "gymnax", "jax", "flax", "gymnasium", "numpy"),
}
"""The packages of each environment whose versions are kept."""


def measure(peer: Peer, seed: int, python: Path, scratch: Path, limit: float) -> Measured:
    """Runs a peer on a seed.

    Args:
        peer: What to run.
        seed: Its seed.
        python: Of its environment.
        scratch: A folder where run folders and caches may lie.
        limit: Seconds after which it is stopped.

    Raises:
        SystemExit: It failed.
    """
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        here = Path(name)
        run_dir, said, complaints = here / "run", here / "said", here / "complaints"
        is_ours = peer.environment is None
        last = ("--seed", str(seed), "--run-dir", str(run_dir)) if is_ours else (str(seed),)
        command = [str(python), "-m", *peer.arguments, *last]
        environment = _environment(peer, scratch, here)
        stopped = False
        with said.open("w") as out, complaints.open("w") as err:
            started = time.perf_counter()
            try:
                code = subprocess.run(
                    command, stdout=out, stderr=err, env=environment, cwd=ROOT, timeout=limit
                ).returncode
            except subprocess.TimeoutExpired:
                code, stopped = 0, True
            seconds = time.perf_counter() - started
        if code:
            raise SystemExit(f"{peer.name}, seed {seed}, failed:\n{complaints.read_text()[-2000:]}")
        if is_ours:
            found = _of_run_folder(run_dir)
        else:
            found = {} if stopped else json.loads(said.read_text().splitlines()[-1])
        return Measured(
            peer.name,
            seed,
            seconds,
            bool(found.get("solved")) and not stopped,
            stopped,
            found.get("env_steps"),
            found.get("steps_per_second"),
        )


def warm_up(peer: Peer, python: Path, scratch: Path) -> None:
    """Imports once what is imported, so that no run waits for the disk; fills a warm cache."""
    modules = "pgjax.train, pgtorch.train" if peer.environment is None else peer.arguments[0]
    subprocess.run(
        [str(python), "-W", "ignore", "-c", f"import {modules}"],
        check=True,
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
    )
    if peer.cache == "warm":
        measure(peer, WARMING_SEED, python, scratch, limit=600)


def versions(name: str | None, python: Path) -> dict[str, str]:
    """The versions of Python and of the packages of interest in an environment."""
    code = (
        "import importlib.metadata, json, platform, sys\n"
        "found = {name: importlib.metadata.version(name) for name in sys.argv[1:]}\n"
        "print(json.dumps({'python': platform.python_version()} | found))"
    )
    asked = [str(python), "-c", code, *OF_INTEREST[name]]
    return json.loads(subprocess.run(asked, check=True, stdout=subprocess.PIPE).stdout)


def _environment(peer: Peer, scratch: Path, here: Path) -> dict[str, str]:
    """The environment variables of a run: those of this process but for JAX's cache."""
    given = {key: os.environ[key] for key in os.environ if key not in (CACHE, *CACHE_ALL)}
    if peer.cache == "empty":
        return given | {CACHE: str(here / "cache")}
    if peer.cache == "warm":
        cache = scratch / f"cache-{peer.name}"
        return given | {CACHE: str(cache)} | (CACHE_ALL if peer.environment else {})
    return given


def _of_run_folder(run_dir: Path) -> dict[str, Any]:
    """What one of our runs came to, as a peer would say it; a stopped one is read as it lies."""
    from pgcore.errors import UsageError
    from pgcore.runs import RESULT, RunFolder

    result = run_dir / RESULT
    try:
        rows = RunFolder.open(run_dir).read_rows()
    except UsageError:  # it was stopped before its first update
        return {}
    first, last = rows[0], rows[-1]
    seconds = last.seconds - first.seconds
    return {
        "solved": result.exists() and json.loads(result.read_text())["ended"] == "solved",
        "env_steps": last.env_steps,
        "steps_per_second": (last.env_steps - first.env_steps) / seconds if seconds else None,
    }
