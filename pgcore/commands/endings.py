"""What a command says when a run has ended, as the run's folder tells, and its exit code."""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

from pgcore.checkpoints import checkpoint_folders
from pgcore.commands.process import say, stop_code
from pgcore.config import TrainConfig
from pgcore.errors import RunError, printable
from pgcore.runs import POLICY, RESULT

Stop = KeyboardInterrupt | RunError
"""What ends a run before its time."""


def report(
    name: str, config: TrainConfig, run_dir: Path, stop: Stop | None, *, as_json: bool
) -> int:
    """Says how a run ended, as its folder tells, and returns the exit code."""
    path = run_dir / RESULT
    result = json.loads(path.read_text()) if path.exists() else {}
    if not result.get("evaluation"):
        if checkpoint_folders(run_dir):  # the disk is full, say, and there is no result.json
            _print_how_to_go_on(name, config, run_dir)
        raise without_a_policy(stop, run_dir)
    if as_json:
        say(json.dumps(result | {"run_dir": str(run_dir)}))
    else:
        _print_result(name, config, run_dir, result, stop)
    return exit_code_of(f"{name}: the run stopped", stop)


def _print_result(
    name: str, config: TrainConfig, run_dir: Path, result: dict[str, Any], stop: Stop | None
) -> None:
    """Says how one run ended, what is kept, and how it can go on."""
    solved_at = result["solved_at"]
    if stop is not None:
        say(f"{ended_by(stop)}; the best policy so far is kept")
    elif solved_at is not None:
        say(
            f"solved {config.env_id} with {config.agent} after {solved_at['env_steps']:,} "
            f"environment steps, {solved_at['episodes']:,} episodes, {solved_at['seconds']:.1f} s"
        )
    elif result["ended"] == "paused":
        say(f"paused after update {result['updates']}, {result['env_steps']:,} environment steps")
    else:
        say(f"not solved within {config.total_timesteps:,} environment steps (--total-timesteps)")
    evaluation = result["evaluation"]
    say(
        f"kept policy: mean return {evaluation['mean_return']:.1f} over "
        f"{evaluation['episodes']} episodes, from update {result['kept_update']}"
    )
    say(f"run folder: {run_dir}")
    can_go_on = isinstance(stop, KeyboardInterrupt) or result["ended"] == "paused"
    if can_go_on and checkpoint_folders(run_dir):
        _print_how_to_go_on(name, config, run_dir)


def _print_how_to_go_on(name: str, config: TrainConfig, run_dir: Path) -> None:
    named = f" --env-id {shlex.quote(config.env_id)}" if ":" in config.env_id else ""
    say(printable(f"go on with: {name} resume {shlex.quote(str(run_dir))}{named}"))


def say_stopped(name: str, error: RunError) -> None:
    """Says what stopped a run by itself."""
    say(f"{name}: the run stopped: {error}", sys.stderr)


def exit_code_of(what: str, stop: Stop | None) -> int:
    """What the process returns; it says `what` stopped, if that is not what a person did."""
    if isinstance(stop, RunError):
        say(f"{what}: {stop}", sys.stderr)
        return 1
    return stop_code(stop) if stop else 0


def without_a_policy(stop: Stop | None, run_dir: Path) -> Stop:
    """What stopped a run before its first update, or before it could say how; it says so."""
    if not isinstance(stop, KeyboardInterrupt):
        return stop or RunError("no update was made")
    if (run_dir / POLICY).exists():
        return type(stop)(f"{ended_by(stop)}; {run_dir} has the best policy so far")
    return type(stop)(f"{ended_by(stop)} before the first update; {run_dir} has no policy")


def ended_by(stop: Stop) -> str:
    """What ended a run, in a word or two."""
    if isinstance(stop, KeyboardInterrupt):
        return str(stop) or "interrupted"
    return "stopped"
