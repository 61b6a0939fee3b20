"""The comparison with the peers, as far as it can be tested without them."""

import re
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from benchmarks import peers, results
from benchmarks.peers_code.picture import draw
from benchmarks.peers_code.rule import EVERY, FRESH, NUM_EPISODES, Watch, play_fresh
from benchmarks.peers_code.runs import OF_INTEREST, PEERS, Measured
from benchmarks.peers_code.table import summaries, table

LIMIT = 75.0


def run_of(peer, seed, seconds, *, solved=True, stopped=False):
    steps = None if stopped else 1_000 * (seed + 1)
    return Measured(peer, seed, seconds, solved, stopped, steps, None if stopped else 4_321.0)


RUNS = [
    *[run_of("pgjax-reinforce", seed, seconds) for seed, seconds in enumerate((4.0, 3.0, 5.0))],
    run_of("article", 0, LIMIT, solved=False, stopped=True),
    run_of("article", 1, 30.0),
    run_of("article", 2, LIMIT, solved=False, stopped=True),
    *[run_of("sb3-a2c", seed, 20.0, solved=False) for seed in range(3)],
    *[run_of("sbx-ppo", seed, LIMIT, solved=False, stopped=True) for seed in range(3)],
]


def test_a_run_that_was_not_solved_is_slower_than_any_that_was():
    article = next(each for each in summaries(RUNS) if each.words.endswith("article's loop"))
    assert (article.fastest, article.median, article.slowest) == (30.0, np.inf, np.inf)
    assert article.env_steps == 2_000  # of the one that was solved


def test_the_table_tells_a_spent_budget_from_a_run_that_was_stopped():
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table(RUNS, LIMIT).splitlines()[2:]
    ]
    assert cells == [
        ["pgjax, reinforce", "3 of 3", "4.0 (3.0 to 5.0)", "2,000", "4,320"],
        [
            "pgtorch, the article's loop",
            "1 of 3 (2 not in 75 s)",
            "not solved (30.0 to not solved)",
            "2,000",
            "4,320",
        ],
        ["Stable-Baselines3 A2C", "0 of 3", "not solved", "", "4,320"],
        ["SBX PPO", "0 of 3 (3 not in 75 s)", "not solved in 75 s", "", ""],
    ]


def test_the_picture_is_drawn_where_nothing_was_solved_too(tmp_path):
    path = tmp_path / "peers.png"
    draw(RUNS, LIMIT, path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_only_the_first_episode_of_each_environment_counts():
    """Always to the right falls within some ten steps: many episodes would fit into the longest."""
    initial, _ = gymnasium.make_vec(
        "CartPole-v1", num_envs=NUM_EPISODES, vectorization_mode="vector_entry_point"
    ).reset(seed=FRESH + 3)
    env = gymnasium.make("CartPole-v1").unwrapped
    lengths = []
    for state in initial.astype(np.float64):
        env.reset(seed=0)
        env.state, terminated, length = tuple(state), False, 0
        while not terminated:
            _, _, terminated, _, _ = env.step(1)
            length += 1
        lengths.append(length)
    assert len(set(lengths)) > 1
    assert play_fresh(lambda obs: np.ones(len(obs), int), seed=3) == np.mean(lengths)


def test_an_evaluation_at_the_threshold_solves_and_one_below_does_not():
    watch = Watch()
    assert not watch.evaluate(lambda: 474.99)
    assert watch.evaluate(lambda: 475.0)
    assert watch.solved


def test_a_peer_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(SystemExit, match="dqn: no such peer; there are pgjax-reinforce, "):
        peers.main(peers.Peers(only=("dqn",)))


def test_every_environment_is_pinned_to_the_last_package():
    for name in {peer.environment for peer in PEERS} - {None}:
        lines = Path(peers.CODE / f"{name}.txt").read_text(encoding="utf-8").splitlines()
        pins = dict(re.fullmatch(r"([\w.-]+)==([\w.]+)", line).groups() for line in lines)
        found = {re.sub(r"[-_.]+", "-", package).lower() for package in pins}
        assert {*OF_INTEREST[name]} <= found
        assert pins.get("torch", "2.13.0") == "2.13.0"


def test_the_notes_say_how_often_rejax_is_asked():
    assert f"every {EVERY:,} steps" in " ".join(peers.NOTES.split())


@pytest.mark.parametrize("page", peers.PAGES)
def test_the_pages_have_the_table_of_the_kept_figures(page):
    figures = results.load(peers.NAME)
    runs = [Measured(**run) for run in figures["runs"]]
    assert results.table_in(page, peers.NAME) == table(runs, figures["limit"])
    assert figures["command"] in (results.ROOT / page).read_text(encoding="utf-8")
