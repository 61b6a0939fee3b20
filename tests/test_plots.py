"""Learning curves: the statistics, the common grid of seeds, the picture, and the command."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from pgcore.cli import run_cli
from pgcore.config import TrainConfig
from pgcore.errors import UsageError
from pgcore.evaluation import Evaluation
from pgcore.evaluation.statistics import bootstrap_interval, interquartile_mean
from pgcore.plots.curves import NUM_CURVE_RESAMPLES, hold, labels, learning_curve, read_runs
from pgcore.plots.pictures import OKABE_ITO, PANELS, SEEDS_NOTE, draw, plot_runs
from pgcore.runs import RunFolder
from pgcore.runs.metrics import CSV_COLUMNS
from pgcore.runs.seeds_folder import open_runs
from tests.test_files import ROW

# --- statistics


@pytest.mark.parametrize("num", [4, 8, 20, 100])
def test_the_interquartile_mean_of_a_multiple_of_four_is_the_mean_trimmed_by_a_quarter(num):
    values = np.random.default_rng(num).normal(size=(num, 3))
    expected = scipy.stats.trim_mean(values, 0.25, axis=0)
    # Sums of at most 100 numbers of size 1, in another order: a few roundings.
    np.testing.assert_allclose(interquartile_mean(values), expected, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("num", [1, 2, 3, 5, 6, 7, 9, 50])
def test_the_interquartile_mean_does_not_change_when_each_value_is_there_four_times(num):
    # 4N values have N whole ones below and N above the middle half, so no value has to be cut.
    values = np.random.default_rng(num).normal(size=num)
    middle = np.sort(np.repeat(values, 4))[num : 3 * num]
    assert interquartile_mean(values) == pytest.approx(middle.mean(), rel=1e-13, abs=1e-15)


def test_the_interquartile_mean_of_five_by_hand():
    # A quarter is 1.25 values: 1 goes, and of 2 a quarter; the same above. (1.5 + 30 + 3·40/4)/2.5
    assert interquartile_mean(np.array([30.0, 2.0, 1e6, 40.0, 1.0])) == pytest.approx(61.5 / 2.5)


def test_the_interquartile_mean_reduces_the_axis_that_it_is_told():
    values = np.random.default_rng(0).normal(size=(5, 6, 7))
    for axis in (0, 1, 2, -1):
        assert np.array_equal(
            interquartile_mean(values, axis), interquartile_mean(np.moveaxis(values, axis, 0))
        )


def test_the_interquartile_mean_does_not_hide_a_nan_among_the_values_it_leaves_out():
    assert np.isnan(interquartile_mean(np.array([np.nan, 1.0, 2.0, 3.0, 4.0])))


def test_the_interquartile_mean_of_nothing_is_refused():
    with pytest.raises(UsageError, match="number of values is 0"):
        interquartile_mean(np.zeros((0, 3)))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("num", [1, 7, 100, 1000])
def test_the_interval_of_an_evaluation_is_that_of_all_resampled_means_at_once(num, dtype):
    returns = np.random.default_rng(num).exponential(100.0, num).astype(dtype)
    picks = np.random.default_rng(0).integers(num, size=(10_000, num))
    tail = (1 - 0.95) / 2
    expected = np.quantile(returns[picks].mean(axis=1), [tail, 1 - tail])
    assert Evaluation(returns).interval() == tuple(expected.tolist())


def test_a_resample_takes_each_seeds_whole_curve():
    # In every seed the second point is the first one's negative, so in every resample too.
    first = np.random.default_rng(0).normal(size=(9, 1))
    low, high = bootstrap_interval(np.mean, np.hstack([first, -first]))
    np.testing.assert_allclose(low, -high[::-1], rtol=1e-12)
    assert low[0] < first.mean() < high[0]


def test_a_curve_is_resampled_in_parts_as_it_would_be_at_once():
    values = np.random.default_rng(0).normal(size=(30, 200))  # 2,000 resamples are 12 parts
    picks = np.random.default_rng(0).integers(30, size=(2_000, 30))
    means = np.stack([interquartile_mean(values[pick]) for pick in picks])
    low, high = bootstrap_interval(interquartile_mean, values, 0.9, num_resamples=2_000)
    np.testing.assert_allclose(low, np.quantile(means, 0.05, axis=0), rtol=1e-12)
    np.testing.assert_allclose(high, np.quantile(means, 0.95, axis=0), rtol=1e-12)


# --- runs and their curves

A = [(100, 10.0, 11.0), (200, 20.0, 22.0), (400, 40.0, 44.0)]
B = [(50, 1.0, 2.0), (300, 3.0, 4.0)]
"""Environment steps, mean of the last 100 episodes, evaluation of the kept policy."""


def write_run(path, points=A, framework="pgjax", **config):
    run = RunFolder.create(TrainConfig(run_dir=path, **config), framework)
    for update, (env_steps, training, evaluation) in enumerate(points, start=1):
        values = {"mean_return_100": training, "best_evaluation": evaluation}
        run.append(ROW._replace(update=update, env_steps=env_steps, **values))
    run.close()
    return path


def write_seeds(path, seeds, framework="pgjax", **config):
    path.mkdir()
    for seed, points in seeds.items():
        write_run(path / f"seed-{seed}", points, framework, seed=seed, **config)
    (path / "system.json").write_text(json.dumps({"framework": framework}))
    (path / "seeds.csv").write_text("seed\n")
    return path


def metrics_lines(folder):
    return (folder / "metrics.csv").read_text().splitlines()


def test_the_rows_of_a_run_read_back(tmp_path):
    run = RunFolder.create(TrainConfig(run_dir=tmp_path / "run"), "pgjax")
    rows = [ROW, ROW._replace(update=2, env_steps=21, mean_return_100=1 / 3, loss=-1e-20)]
    for row in rows:
        run.append(row)
    assert RunFolder.open(tmp_path / "run").read_rows() == rows  # while it is still open
    assert all(type(a) is type(b) for a, b in zip(run.read_rows()[0], ROW, strict=True))
    run.close()


@pytest.mark.parametrize("cut", [1, 5, 60])
def test_half_a_last_line_is_left_out(tmp_path, cut):
    folder = write_run(tmp_path / "run")
    rows = RunFolder.open(folder).read_rows()
    last = len(metrics_lines(folder)[-1])
    text = (folder / "metrics.csv").read_bytes()
    (folder / "metrics.csv").write_bytes(text[: -min(cut, last) - 1])
    assert RunFolder.open(folder).read_rows() == rows[:-1]


def test_columns_of_no_row_are_passed_over(tmp_path):
    folder = write_run(tmp_path / "run")
    rows = RunFolder.open(folder).read_rows()
    lines = [f"{index},{line}\n" for index, line in enumerate(metrics_lines(folder))]
    (folder / "metrics.csv").write_text("".join(lines))
    assert RunFolder.open(folder).read_rows() == rows


HEADER = ",".join(CSV_COLUMNS.values())
BAD_METRICS = {
    "no file": (None, "'.*run' has no update to read: .*metrics.csv"),
    "nothing": ("", "metrics.csv' holds no row: the run's first update is not done"),
    "half a header": (HEADER[:20], "holds no row"),
    "a header alone": (HEADER + "\r\n", "holds no row"),
    "no header": ("1,2,3\n", "is damaged: it has no column charts/update, "),
    "a column too few": (HEADER.replace("global_step", "x") + "\n", "no column global_step$"),
    "a value too few": (HEADER + "\n1,2\n", "line 2: it has 2 values, and the header 11"),
    "no number": (HEADER + "\n1,2,3,x" + 7 * ",5" + "\n", "line 2: .*'x'"),
    "a fraction of a step": (HEADER + "\n1,2.5" + 9 * ",5" + "\n", "line 2: .*2.5"),
    "steps that fall": (
        HEADER + "\n1,20" + 9 * ",5" + "\n2,20" + 9 * ",5" + "\n",
        "line 3: global_step does not rise",
    ),
    "no text": (b"\xff\xfe\n", "is damaged: "),
}


@pytest.mark.parametrize("name", BAD_METRICS)
def test_metrics_that_cannot_be_read_are_refused(tmp_path, name):
    content, message = BAD_METRICS[name]
    folder = write_run(tmp_path / "run")
    (folder / "metrics.csv").unlink()
    if content is not None:
        data = content if isinstance(content, bytes) else content.encode()
        (folder / "metrics.csv").write_bytes(data)
    with pytest.raises(UsageError, match=message):
        RunFolder.open(folder).read_rows()


def test_a_folder_of_seeds_opens_in_order_of_their_numbers(tmp_path):
    folder = write_seeds(tmp_path / "seeds", {10: B, 9: A, 2: A})
    (folder / "seed-old").mkdir()
    assert [run.config.seed for run in open_runs(folder)] == [2, 9, 10]
    [single] = open_runs(folder / "seed-9")
    assert single.path == folder / "seed-9"


def test_a_folder_of_no_seed_is_refused(tmp_path):
    with pytest.raises(UsageError, match="has a seeds.csv, but no folder seed-N"):
        open_runs(write_seeds(tmp_path / "seeds", {}))


def test_a_value_holds_until_the_next_update_and_the_last_for_ever():
    grid = np.arange(100, 500)
    expected = [[value for step, value, _ in A if step <= point][-1] for point in grid]
    steps, values, _ = np.array(A).T
    assert np.array_equal(hold(steps, values, grid), expected)


@pytest.mark.parametrize(("field", "column"), [("mean_return_100", 1), ("best_evaluation", 2)])
def test_the_curve_of_seeds_is_the_mean_of_their_middle_half_at_each_step(tmp_path, field, column):
    seeds = {0: A, 1: B, 2: [(60, 5.0, 6.0)], 3: [(70, 7.0, 8.0), (390, 9.0, 9.0)], 4: A[:2]}
    [run] = read_runs([write_seeds(tmp_path / "seeds", seeds)])
    curve = learning_curve(run, field)
    assert curve.steps[0] == 100  # before it, seeds 0 and 4 have no value
    assert curve.steps[-1] == 400  # the last seed's end
    for index, step in enumerate(curve.steps):
        now = [[row[column] for row in points if row[0] <= step][-1] for points in seeds.values()]
        expected = np.sort(np.repeat(now, 4))[5:15].mean()
        assert curve.values[index] == pytest.approx(expected, rel=1e-13)
        assert curve.low[index] <= expected <= curve.high[index]
        assert min(now) <= curve.low[index] < curve.high[index] <= max(now)


def test_the_interval_of_a_curve_is_the_bootstraps(tmp_path):
    seeds = {seed: [(100, float(seed**2), 0.0)] for seed in range(10)}
    [run] = read_runs([write_seeds(tmp_path / "seeds", seeds)])
    curve = learning_curve(run, "mean_return_100")
    returns = np.arange(10.0)[:, None] ** 2
    low, high = bootstrap_interval(
        interquartile_mean, returns, 0.95, num_resamples=NUM_CURVE_RESAMPLES
    )
    assert (curve.low, curve.high) == (low, high)


def test_a_single_run_is_drawn_as_it_is(tmp_path):
    [run] = read_runs([write_run(tmp_path / "run")])
    curve = learning_curve(run, "mean_return_100")
    assert curve.steps.tolist() == [100, 200, 400]
    assert curve.values.tolist() == curve.low.tolist() == curve.high.tolist() == [10, 20, 40]


def test_runs_are_named_by_what_distinguishes_them(tmp_path):
    (tmp_path / "other").mkdir()
    run = write_run(tmp_path / "run")
    same = write_run(tmp_path / "same")
    torch_run = write_run(tmp_path / "torch", framework="pgtorch")
    reparam = write_run(tmp_path / "reparam", agent="reparam")
    namesake = write_run(tmp_path / "other" / "run")
    seeds = write_seeds(tmp_path / "seeds", {1: A, 2: B}, agent="reparam")
    names = {
        (run,): ["run"],
        (run, same): ["run", "same"],
        (run, torch_run): ["run (pgjax)", "torch (pgtorch)"],
        (run, reparam): ["run (reinforce)", "reparam (reparam)"],
        (run, namesake): [str(run), str(namesake)],
        (seeds,): ["seeds (n = 2)"],
        (torch_run, seeds): ["torch (reinforce, pgtorch)", "seeds (reparam, pgjax, n = 2)"],
    }
    assert {paths: labels(read_runs(paths)) for paths in names} == names


# --- the picture


def draw_paths(*paths):
    return draw(read_runs(paths))


def legend_texts(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_each_panel_draws_each_runs_curve(tmp_path):
    single = write_run(tmp_path / "single")
    seeds = write_seeds(tmp_path / "seeds", {0: A, 1: B, 2: B})
    runs = read_runs([single, seeds])
    figure = draw(runs)
    assert len(figure.axes) == len(PANELS) == 2
    for axes, field in zip(figure.axes, PANELS, strict=True):
        for run, line in zip(runs, axes.lines[:2], strict=True):
            curve = learning_curve(run, field)
            assert np.array_equal(line.get_xdata(), curve.steps)
            assert np.array_equal(line.get_ydata(), curve.values)
        [band] = axes.collections  # the single run has none
        outline = {tuple(point) for point in band.get_paths()[0].vertices}
        curve = learning_curve(runs[1], field)
        assert outline >= set(zip(curve.steps, curve.low, strict=True))
        assert outline >= set(zip(curve.steps, curve.high, strict=True))
        assert axes.get_xlabel() == "environment steps"
    assert figure.get_suptitle() == "CartPole-v1"
    assert figure.axes[0].lines[0].get_drawstyle() == "steps-post"


def test_the_legend_names_what_is_drawn_in_its_colour(tmp_path):
    paths = [write_run(tmp_path / f"_{index}$x$") for index in range(8)]
    figure = draw_paths(*paths)
    names = [f"_{index}\\$x\\$" for index in range(8)]  # no formula
    assert legend_texts(figure) == [*names, "solve threshold 475"]
    lines = figure.axes[0].lines
    looks = [(line.get_color(), line.get_linestyle()) for line in lines]
    drawn = [(line.get_color(), line.get_linestyle()) for line in figure.legends[0].get_lines()]
    assert looks == drawn
    assert len(set(looks)) == len(looks)
    assert [colour for colour, _ in looks[:8]] == [*OKABE_ITO, OKABE_ITO[0]]


def test_only_a_picture_of_seeds_explains_its_bands_and_what_becomes_of_a_seed_that_ended(tmp_path):
    single = write_run(tmp_path / "single")
    seeds = write_seeds(tmp_path / "seeds", {0: A, 1: B})
    assert "A seed that ended keeps its last value" in SEEDS_NOTE
    assert draw_paths(single, seeds).legends[0].get_title().get_text() == SEEDS_NOTE
    assert draw_paths(single).legends[0].get_title().get_text() != SEEDS_NOTE


def test_the_threshold_is_drawn_where_all_runs_agree_on_it(tmp_path):
    run = write_run(tmp_path / "run")
    other = write_run(tmp_path / "other", solve_threshold=100.0)
    never = write_run(tmp_path / "never", solve_threshold=1e6)
    assert "solve threshold 475" in legend_texts(draw_paths(run))
    for axes in draw_paths(other).axes:
        assert list(axes.lines[-1].get_ydata()) == [100.0, 100.0]
    assert legend_texts(draw_paths(run, other)) == ["run", "other"]
    assert legend_texts(draw_paths(never)) == ["never"]  # it would flatten the curve


def test_a_run_of_one_update_is_visible(tmp_path):
    assert draw_paths(write_run(tmp_path / "run", A[:1])).axes[0].lines[0].get_marker() == "o"


def test_thousands_are_written_as_k(tmp_path):
    axes = draw_paths(write_run(tmp_path / "run", [(100_000, 1.0, 1.0)])).axes[0]
    format_tick = axes.xaxis.get_major_formatter()
    assert [format_tick(value) for value in (0, 500, 100_000, 2_500_000)] == [
        "0",
        "500",
        "100k",
        "2.5M",
    ]


@pytest.mark.parametrize("length", [5, 42, 100])  # 42 is a default run folder's
def test_no_text_leaves_the_picture_or_covers_another(tmp_path, length):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    paths = [
        write_run(tmp_path / (f"{seed}-" + 20 * "reparam-")[:length], framework=name)
        for seed, name in enumerate(["pgjax", "pgtorch"] * 5)
    ]
    figure = draw_paths(*paths, write_seeds(tmp_path / "seeds", {0: A, 1: B}))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    legend = figure.legends[0].get_window_extent(renderer)
    panels = [axes.get_tightbbox(renderer) for axes in figure.axes]
    for box in (legend, *panels):
        assert figure.bbox.x0 <= box.x0 <= box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 <= box.y1 <= figure.bbox.y1
    assert not any(legend.overlaps(panel) for panel in panels)
    assert min(axes.bbox.height for axes in figure.axes) > figure.bbox.height / 3


MAGIC = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF", ".PNG": b"\x89PNG"}


@pytest.mark.parametrize("suffix", MAGIC)
def test_equal_runs_give_equal_bytes_whatever_a_persons_own_settings(tmp_path, suffix):
    import matplotlib

    runs = [write_run(tmp_path / "run"), write_seeds(tmp_path / "seeds", {0: A, 1: B})]
    plot_runs(runs, tmp_path / f"first{suffix}")
    with matplotlib.rc_context({"font.size": 20.0, "lines.linewidth": 9.0, "savefig.dpi": 10}):
        plot_runs(runs, tmp_path / f"second{suffix}")
        assert matplotlib.rcParams["font.size"] == 20.0
    data = (tmp_path / f"first{suffix}").read_bytes()
    assert data.startswith(MAGIC[suffix])
    assert data == (tmp_path / f"second{suffix}").read_bytes()
    assert b"Matplotlib v" not in data  # in another process it would be another time and version
    assert b"Date" not in data


# --- the command


def plot(*args):
    def load():
        raise AssertionError("plot needs no framework")

    return run_cli("pgjax", load, ["plot", *map(str, args)])


def test_plot_says_what_it_wrote_and_replaces_an_older_picture(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "run")
    Path("curves.png").write_text("old")
    assert plot("run") == 0
    assert Path("curves.png").read_bytes().startswith(MAGIC[".png"])
    assert capfd.readouterr().out == "curves.png: 1 run, run\n"
    write_seeds(tmp_path / "seeds", {0: A, 1: B})
    assert plot("run", "seeds", "--out", "two.svg") == 0
    assert capfd.readouterr().out == "two.svg: 2 runs, run; seeds (n = 2)\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "curves.png",
        "run",
        "seeds",
        "two.svg",
    ]


def test_a_seed_without_a_row_is_left_out_and_counted_in_the_legend(tmp_path, capfd):
    """Seed 1 was stopped before its first update, seed 2 never began."""
    folder = write_seeds(tmp_path / "seeds", {0: A, 1: []})
    (folder / "seeds.csv").write_text("seed\n0\n1\n2\n")
    assert plot(folder, "--out", tmp_path / "c.png") == 0
    assert capfd.readouterr().out.endswith("1 run, seeds (n = 1 of 3)\n")
    (folder / "seed-0" / "metrics.csv").unlink()
    assert plot(folder, "--out", tmp_path / "d.png") == 2
    assert "has a metrics.csv: no first update is done" in capfd.readouterr().err


BAD_CALLS = [
    ([], "runs is .*at least one run folder"),
    (["nowhere"], "'nowhere' is no run folder"),
    (["x" * 300], "'x{300}' is no run folder"),
    (["run", "--out", "curves.gif"], "out is 'curves.gif', accepted is .*.png, .svg, .pdf"),
    (["run", "--out", "curves"], "out is 'curves'"),
    (["run", "--out", "nowhere/curves.png"], "out 'nowhere/curves.png' cannot be written"),
    (["run", "--out", "folder.png"], "out 'folder.png' cannot be written"),
    (["run", "./run"], "run 'run' is given twice"),
    (["run", "acrobot"], r"do not compare: CartPole-v1 \(run\), Acrobot-v1 \(acrobot\)"),
    (["mixed"], r"CartPole-v1 \(mixed/seed-0\), Acrobot-v1 \(mixed/seed-1\)"),
    (["empty"], "metrics.csv' holds no row"),
    (["unnamed"], "system.json' is damaged: it names no framework"),
    (["run"] * 22, "number of runs is 22, accepted is at most 21"),
]


@pytest.mark.parametrize(("args", "message"), BAD_CALLS, ids=lambda value: str(value)[:40])
def test_a_bad_plot_exits_2_with_one_line_and_writes_nothing(
    tmp_path, monkeypatch, capfd, args, message
):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "run")
    write_run(tmp_path / "acrobot", env_id="Acrobot-v1")
    write_seeds(tmp_path / "mixed", {0: A})
    write_run(tmp_path / "mixed" / "seed-1", env_id="Acrobot-v1")
    (write_run(tmp_path / "empty") / "metrics.csv").write_text(HEADER + "\n")
    (write_run(tmp_path / "unnamed") / "system.json").write_text("{}")
    (tmp_path / "folder.png").mkdir()
    before = set(tmp_path.rglob("*"))
    assert plot(*args) == 2
    stderr = capfd.readouterr().err
    assert stderr.startswith("pgjax: error: ")
    assert stderr.count("\n") == 1
    assert re.search(message, stderr), stderr
    assert set(tmp_path.rglob("*")) == before


def test_an_older_picture_outlives_a_drawing_that_fails(tmp_path, monkeypatch):
    run = write_run(tmp_path / "run")
    (tmp_path / "curves.png").write_text("old")

    def fail(_):
        raise OSError("No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    before = set(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match="curves.png' cannot be written: No space left"):
        plot_runs([run], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_text() == "old"
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("command", ["pgjax", "pgtorch"])
def test_plot_imports_no_framework_and_no_global_plotting_state(tmp_path, command):
    out = tmp_path / "curves.png"
    code = (
        f"import sys; from {command}.cli import main; "
        f"assert 'matplotlib' not in sys.modules; "
        f"assert main(['plot', {str(write_run(tmp_path / 'run'))!r}, '--out', {str(out)!r}]) == 0; "
        "loaded = {'jax', 'flax', 'optax', 'torch', 'matplotlib', 'matplotlib.pyplot'}; "
        "print(sorted(loaded & set(sys.modules)))"
    )
    command_line = [sys.executable, "-W", "error", "-c", code]
    result = subprocess.run(command_line, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "['matplotlib']"
    assert out.exists()


def test_without_matplotlib_plot_says_how_to_install_it(tmp_path, monkeypatch, capfd):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    out = tmp_path / "curves.png"
    assert plot(write_run(tmp_path / "run"), "--out", out) == 2
    message = capfd.readouterr().err
    expected = "matplotlib is not installed; pip install 'policy-gradient-parity[report]'"
    assert message == f"pgjax: error: {expected}\n"
    assert not out.exists()
