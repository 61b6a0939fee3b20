"""The command line that `pgjax` and `pgtorch` share, built from `TrainConfig` with tyro.

Exit codes: 0 done, solved or not; 1 the run failed; 2 something given is not usable; 129, 130 and
143 stopped by SIGHUP, by Ctrl-C and by SIGTERM; 141 nobody reads on (`| head`), as of a program
that SIGPIPE ends.
"""

import argparse
import gc
import os
import select
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, TextIO, get_args

import tyro

from pgcore.commands.benching import Bench, bench
from pgcore.commands.evaluating import Eval, evaluate
from pgcore.commands.framework import Framework
from pgcore.commands.parsing import parse_int
from pgcore.commands.plotting import Plot, plot
from pgcore.commands.process import listening, open_standard_streams, stop_code, uncollected
from pgcore.commands.resuming import Resume, resume
from pgcore.commands.training import GivenConfig, Train, train
from pgcore.config import PRESETS
from pgcore.envs.deadline import leave
from pgcore.errors import RunError, UsageError, printable, unknown_choice

COMMANDS = ("train", "resume", "eval", "plot", "bench")
Command = Train | Resume | Eval | Plot | Bench
EXTRAS = {"torch": "torch", "matplotlib": "report"}
"""Packages that the base install lacks, and the extra that brings each."""
NOBODY_READS = 141
"""That of a program which SIGPIPE, signal 13, ends, such as `yes` in `yes | head`: 128 + 13."""


def run_cli(name: str, load: Callable[[], Framework], argv: Sequence[str] | None = None) -> int:
    """Runs the command `name` and returns its exit code.

    Args:
        name: `"pgjax"` or `"pgtorch"`.
        load: Imports the framework. Called only by what needs it, so `--help` is instant.
        argv: The arguments; by default the process's own.
    """
    open_standard_streams()
    arguments = sys.argv[1:] if argv is None else list(argv)
    code = exit_code(name, lambda: _run(name, lambda: uncollected(load), parse(name, arguments)))
    if argv is None:  # the process ends: no need to look through all that it has imported
        gc.freeze()
    return leave(code)


def exit_code(name: str, action: Callable[[], int]) -> int:
    """What `action` returns, or the code of the error that it raises, after saying which it is.

    Where nobody reads what is printed any more, the command ends without a word, by 141.
    """
    try:
        try:
            return _code(name, action)
        finally:  # while Python ends it would be too late to catch what is raised
            if sys.stdout is not None:  # it is, if it was closed before the start
                sys.stdout.flush()
    except BrokenPipeError:
        silenced = [_silenced(stream) for stream in (sys.stdout, sys.stderr)]
        if not any(silenced):
            raise  # another pipe, to a process of its own
        return NOBODY_READS


def _silenced(stream: TextIO | None) -> bool:
    """Whether nobody reads a stream; then what is left in it goes nowhere when Python ends."""
    try:
        descriptor = stream.fileno() if stream is not None else None
    except OSError:  # of a stream that is none of the system's, as in a test
        descriptor = None
    if descriptor is None:
        return False
    reader = select.poll()
    reader.register(descriptor, 0)
    if not any(events & (select.POLLERR | select.POLLHUP) for _, events in reader.poll(0)):
        return False
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
    return True


def _code(name: str, action: Callable[[], int]) -> int:
    try:
        return action()
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        extra = EXTRAS[error.name]
        print(
            f"{name}: error: {error.name} is not installed; "
            f"pip install 'policy-gradient-parity[{extra}]'",
            file=sys.stderr,
        )
        return 2
    except UsageError as error:
        print(printable(f"{name}: error: {error}"), file=sys.stderr)
        return 2
    except RunError as error:
        print(printable(f"{name}: the run stopped: {error}"), file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        print(f"{name}: {str(stop) or 'interrupted'}", file=sys.stderr)
        return stop_code(stop)


def _run(name: str, load: Callable[[], Framework], command: Command) -> int:
    with listening():
        if isinstance(command, Train):
            return train(name, load, command)
        if isinstance(command, Resume):
            return resume(name, load, command)
        if isinstance(command, Plot):
            return plot(command)
        if isinstance(command, Bench):
            return bench(name, load, command)
        return evaluate(name, load, command)


def parse(name: str, argv: list[str]) -> Command:
    """The command that `argv` asks for. tyro exits with 2 where it can't be parsed."""
    if argv and not argv[0].startswith("-") and argv[0] not in COMMANDS:
        raise unknown_choice("command", argv[0], COMMANDS)
    preset = _find_preset(argv)
    defaults = Train(GivenConfig(**vars(PRESETS[preset])), preset)
    train_type = Annotated[Train, tyro.conf.subcommand("train", default=defaults)]
    resume_type = Annotated[Resume, tyro.conf.subcommand("resume")]
    eval_type = Annotated[Eval, tyro.conf.subcommand("eval")]
    plot_type = Annotated[Plot, tyro.conf.subcommand("plot")]
    bench_type = Annotated[Bench, tyro.conf.subcommand("bench")]
    return tyro.cli(
        train_type | resume_type | eval_type | plot_type | bench_type,
        prog=name,
        description=f"Train, evaluate and plot the article's policy-gradient agents ({name}).",
        args=argv,
        registry=choice_registry(),
    )


def _find_preset(argv: list[str]) -> Any:
    """`--preset` decides the defaults of all other options, so it is looked up before them."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--preset", default="default")
    try:
        preset = parser.parse_known_args(argv)[0].preset
    except argparse.ArgumentError:
        return "default"  # `--preset` without a value: tyro says so
    if preset not in PRESETS:
        raise unknown_choice("preset", preset, PRESETS)
    return preset


def choice_registry() -> tyro.constructors.ConstructorRegistry:
    """Makes `1e5` an integer, and offers the closest match for a choice that does not exist."""
    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def _(info: tyro.constructors.PrimitiveTypeInfo):
        if info.type_origin is not Literal:
            return None
        choices = get_args(info.type)

        def parse_choice(words: list[str]) -> str:
            if words[0] not in choices:
                raise unknown_choice("the value", words[0], choices)
            return words[0]

        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar="{" + ",".join(choices) + "}",
            instance_from_str=parse_choice,
            is_instance=lambda value: value in choices,
            str_from_instance=lambda value: [value],
        )

    @registry.primitive_rule
    def _(info: tyro.constructors.PrimitiveTypeInfo):
        if info.type is not int:
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar="INT",
            instance_from_str=lambda words: parse_int(words[0]),
            is_instance=lambda value: isinstance(value, int),
            str_from_instance=lambda value: [str(value)],
        )

    return registry
