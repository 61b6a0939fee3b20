"""Programs: compiled once, kept whole for the next process, and never taken for another."""

import os
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgcore.config import TrainConfig
from pgjax import programs
from pgjax.programs import Program

CONFIG = TrainConfig()
X = np.arange(4, dtype=np.float32)


def double(x):
    return {"twice": 2 * x, "key": jax.random.key(3)}


def untraced(x):
    raise AssertionError("it was traced")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(programs, "_kept_in", tmp_path)
    return tmp_path


def finish(program):
    """Waits until the program is written."""
    program.begin(X)
    program(X)
    for thread in threading.enumerate():
        if thread.name.startswith("ThreadPoolExecutor"):
            thread.join()


def test_a_program_gives_what_its_function_gives_and_says_its_shapes_before():
    program = Program("double", double, None)
    assert not program.is_begun
    shapes = program.begin(X)
    assert program.is_begun
    assert shapes["twice"].shape == (4,)
    np.testing.assert_array_equal(program(X)["twice"], 2 * X)


def test_without_a_folder_nothing_is_kept(tmp_path):
    assert programs._kept_in is None
    finish(Program("double", double, CONFIG))
    with pytest.raises(AssertionError, match="traced"):
        Program("double", untraced, CONFIG).begin(X)


def test_a_kept_program_is_found_without_a_look_at_its_function(folder):
    finish(Program("double", double, CONFIG))
    again = Program("double", untraced, TrainConfig(seed=5, total_timesteps=7, run_dir="elsewhere"))
    assert again.begin(X)["twice"].shape == (4,)
    result = again(X + 1)
    np.testing.assert_array_equal(result["twice"], 2 * (X + 1))
    assert jnp.issubdtype(result["key"].dtype, jax.dtypes.prng_key)


@pytest.mark.parametrize(
    ("name", "config", "argument"),
    [
        ("other", CONFIG, X),
        ("double", None, X),
        ("double", TrainConfig(learning_rate=1e-3), X),
        ("double", TrainConfig(hidden_sizes=(8,)), X),
        ("double", TrainConfig(eval_episodes=7), X),
        ("double", CONFIG, X[:3]),
        ("double", CONFIG, X.astype(np.int32)),
    ],
)
def test_what_is_made_otherwise_is_another_program(folder, name, config, argument):
    finish(Program("double", double, CONFIG))
    with pytest.raises(AssertionError, match="traced"):
        Program(name, untraced, config).begin(argument)


def test_other_sources_versions_or_settings_are_another_program(folder, monkeypatch):
    finish(Program("double", double, CONFIG))
    monkeypatch.setattr(programs, "_surroundings", lambda: "elsewhere")
    with pytest.raises(AssertionError, match="traced"):
        Program("double", untraced, CONFIG).begin(X)


def test_surroundings_name_sources_versions_processor_and_jax_settings():
    programs._surroundings.cache_clear()
    before = programs._surroundings()
    assert jax.__version__ in before
    assert "jax_enable_x64" in before
    programs._surroundings.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLA_FLAGS", "--another")
        assert programs._surroundings() != before
    programs._surroundings.cache_clear()


def test_a_program_is_private_whatever_the_umask(folder):
    before = os.umask(0)
    try:
        finish(Program("double", double, CONFIG))
    finally:
        os.umask(before)
    Program("double", untraced, CONFIG).begin(X)


@pytest.mark.parametrize("what", ["file", "folder", "link", "owner"])
def test_what_others_could_have_put_there_is_not_run(folder, what, monkeypatch):
    finish(Program("double", double, CONFIG))
    [path] = folder.iterdir()
    match what:
        case "file":
            path.chmod(0o666)
        case "folder":
            folder.chmod(0o777)
        case "link":
            path.symlink_to(path.rename(folder / "elsewhere"))
        case "owner":
            monkeypatch.setattr(os, "getuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(AssertionError, match="traced"):
        Program("double", untraced, CONFIG).begin(X)


def test_a_damaged_file_is_as_if_it_were_not_there(folder):
    finish(Program("double", double, CONFIG))
    [path] = folder.iterdir()
    path.write_bytes(path.read_bytes()[:100])
    program = Program("double", double, CONFIG)
    np.testing.assert_array_equal(program(X)["twice"], 2 * X)


def test_a_whole_file_of_a_program_that_cannot_be_loaded_is_compiled_anew(folder, monkeypatch):
    finish(Program("double", double, CONFIG))

    def fail(*_):
        raise ValueError("another processor's")

    monkeypatch.setattr(programs.serialize_executable, "deserialize_and_load", fail)
    program = Program("double", double, CONFIG)
    np.testing.assert_array_equal(program(X)["twice"], 2 * X)


def test_the_programs_that_were_used_last_are_kept(folder, monkeypatch):
    monkeypatch.setattr(programs, "MOST_KEPT", 2)
    other = folder / "jit_double-0123-cache"  # what JAX has there stays
    other.write_text("JAX's")
    for name in ("first", "second"):
        finish(Program(name, double, CONFIG))
    for age, path in enumerate(sorted(folder.glob("*_*"))):
        os.utime(path, (age + 1, age + 1))  # the first one is the older by its date
    Program("first", untraced, CONFIG).begin(X)  # but was used last
    finish(Program("third", double, CONFIG))
    left = {path.name.partition("_")[0] for path in folder.iterdir()}
    assert left == {"first", "third", "jit"}


def test_a_program_that_cannot_be_touched_is_of_use_all_the_same(folder, monkeypatch):
    finish(Program("double", double, CONFIG))

    def refuse(*_, **__):
        raise PermissionError

    monkeypatch.setattr(type(folder), "touch", refuse)
    Program("double", untraced, CONFIG).begin(X)


def test_a_second_run_imports_no_flax(tmp_path):
    env = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    script = """if 1:
        import sys
        from pgjax.cli import main
        code = main([*"train --episodes-per-update 2 --total-timesteps 50 --run-dir".split(),
                     sys.argv[1]])
        print(code, "flax" in sys.modules)
    """

    def last_line(name):
        command = [sys.executable, "-c", script, str(tmp_path / name)]
        env["XDG_CACHE_HOME"] = str(tmp_path)
        ran = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
        return ran.stdout.splitlines()[-1]

    assert [last_line("first"), last_line("second")] == ["0 True", "0 False"]


SCRIPT = """
import pathlib, sys
import jax, numpy as np
from pgcore.config import TrainConfig
from pgjax import programs

folder = pathlib.Path(sys.argv[1])
jax.config.update("jax_compilation_cache_dir", str(folder))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
programs.keep_in(folder)
program = programs.Program("f", lambda x: jax.numpy.cumsum(jax.numpy.sin(x)), TrainConfig())
print(float(program(np.arange(8, dtype=np.float32))[-1]))
"""


def test_what_came_out_of_jax_s_own_cache_is_not_kept_for_it_would_lack_its_code(tmp_path):
    env = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}

    def run():
        command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
        return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout

    first = run()
    [kept] = tmp_path.glob("f_*")
    kept.unlink()
    assert [run(), run()] == [first, first]
    assert not [*tmp_path.glob("f_*")]
