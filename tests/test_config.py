"""What a configuration accepts, and what it says of what it doesn't."""

import json
import math

import numpy as np
import pytest

from pgcore.config import PRESETS, TrainConfig
from pgcore.errors import UsageError

BAD_SETTINGS = [
    ({"agent": "renforce"}, "agent is 'renforce'.*did you mean 'reinforce'"),
    ({"normalize": "bach"}, "normalize is 'bach'.*did you mean 'batch'"),
    ({"env_id": ""}, "env_id is ''"),
    ({"env_id": None}, "env_id is None"),
    ({"env_id": 3}, "env_id is 3"),
    ({"agent": ["reparam"]}, r"agent is \['reparam'\]"),
    ({"agent": None}, "agent is None"),
    ({"seed": -1}, "seed is -1.*from 0 to"),
    ({"seed": 2**32}, "seed is 4294967296"),
    ({"seed": True}, "seed is True"),
    ({"seed": 1.0}, "seed is 1.0"),
    ({"seed": np.float32(1)}, "seed is 1.0"),
    ({"seed": np.True_}, "seed is True"),
    ({"seed": "1"}, "seed is '1'"),
    ({"episodes_per_update": 1_000_001}, "episodes_per_update is 1000001.*at most 1,000,000"),
    ({"eval_episodes": 10**40}, "eval_episodes is 10+, accepted"),
    ({"episodes_per_update": 0}, "episodes_per_update is 0.*at least 1"),
    ({"total_timesteps": 0}, "total_timesteps is 0"),
    ({"eval_episodes": 0}, "eval_episodes is 0"),
    ({"learning_rate": 0.0}, "learning_rate is 0.0.*above 0"),
    ({"learning_rate": math.inf}, "learning_rate is inf"),
    ({"learning_rate": "fast"}, "learning_rate is 'fast'"),
    ({"discount": math.nan}, "discount is nan.*from 0 to 1"),
    ({"discount": 1.01}, "discount is 1.01"),
    ({"discount": True}, "discount is True"),
    ({"discount": 10**400}, "discount is 10+, accepted"),
    ({"learning_rate": 10**400}, "learning_rate is 10+, accepted"),
    ({"solve_threshold": 10**400}, "solve_threshold is 10+, accepted"),
    ({"max_grad_norm": "1"}, "max_grad_norm is '1'"),
    ({"discount": -0.01}, "discount is -0.01"),
    ({"hidden_sizes": ()}, r"hidden_sizes is \(\)"),
    ({"hidden_sizes": (24, 0)}, r"hidden_sizes is \(24, 0\)"),
    ({"hidden_sizes": 24}, "hidden_sizes is 24"),
    ({"hidden_sizes": "24"}, "hidden_sizes is '24'"),
    ({"hidden_sizes": (24, True)}, r"hidden_sizes is \(24, True\)"),
    ({"hidden_sizes": (65_537,)}, r"hidden_sizes is \(65537,\), .*at most 65,536"),
    ({"run_dir": ""}, "run_dir is ''"),
    ({"until_update": 0}, "until_update is 0.*at least 1"),
    ({"until_update": 1.0}, "until_update is 1.0"),
    ({"checkpoint_every": -1}, "checkpoint_every is -1.*at least 0"),
    ({"checkpoint_every": None}, "checkpoint_every is None"),
    ({"until_update": 5, "checkpoint_every": 0}, "checkpoint_every is 0.*beside until_update"),
    ({"max_grad_norm": 0.0}, "max_grad_norm is 0.0"),
    (
        {"env_timeout": -1},
        "env_timeout is -1, accepted is seconds, from 0.1 to .*, or 0",
    ),
    ({"env_timeout": 0.01}, "env_timeout is 0.01"),
    ({"env_timeout": None}, "env_timeout is None"),
    ({"env_timeout": math.inf}, "env_timeout is inf"),
    ({"solve_threshold": math.nan}, "solve_threshold is nan"),
]


@pytest.mark.parametrize(("settings", "message"), BAD_SETTINGS)
def test_a_bad_setting_is_refused_by_field_value_and_what_is_accepted(settings, message):
    with pytest.raises(UsageError, match=message):
        TrainConfig(**settings)


@pytest.mark.parametrize("discount", [0, 0.0, 1, 1.0])
def test_both_ends_of_the_discount_are_accepted(discount):
    assert TrainConfig(discount=discount).discount == discount


def test_numpys_scalars_and_paths_become_plain_values(tmp_path):
    config = TrainConfig(
        seed=np.int64(3), discount=np.float32(0.5), run_dir=tmp_path, hidden_sizes=[np.int64(4)]
    )
    assert json.loads(json.dumps(config.to_dict()))["hidden_sizes"] == [4]
    assert json.loads(json.dumps(config.to_dict()))["run_dir"] == str(tmp_path)
    assert (config.seed, config.discount) == (3, 0.5)


def test_a_configuration_survives_json():
    config = TrainConfig(agent="reparam", hidden_sizes=(3,), max_grad_norm=0.5)
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_an_unknown_key_is_refused_with_the_closest_match():
    values = TrainConfig().to_dict() | {"discuont": 0.9}
    with pytest.raises(UsageError, match="'discuont'.*did you mean 'discount'"):
        TrainConfig.from_dict(values)


def test_a_missing_key_is_refused_by_name():
    values = TrainConfig().to_dict()
    del values["discount"]
    with pytest.raises(UsageError, match="discount"):
        TrainConfig.from_dict(values)


def test_a_configuration_of_an_older_version_has_no_time_limit_of_its_own_and_gets_the_default():
    values = TrainConfig().to_dict()
    del values["env_timeout"]
    assert TrainConfig.from_dict(values) == TrainConfig()


def test_the_articles_preset_is_one_episode_an_update_and_episode_statistics():
    assert PRESETS["default"] == TrainConfig()
    assert PRESETS["article"] == TrainConfig(episodes_per_update=1, normalize="episode")
