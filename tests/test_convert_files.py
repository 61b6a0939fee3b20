"""`parity convert`: files from torch's layout to Flax's and back, in every way to go wrong."""

import json

import numpy as np
import pytest
import safetensors.numpy

from parity.cli import COMMANDS, main
from parity.convert import convert_file
from pgcore.errors import UsageError
from pgcore.files.schema import PolicyFile, read_policy, write_policy
from pgcore.files.tensors import from_bytes, to_bytes

RNG = np.random.default_rng(0)


def arrays(**shapes):
    return {name.replace("__", "."): RNG.normal(size=shape) for name, shape in shapes.items()}


LINEAR = arrays(linear1__weight=(3, 3), linear1__bias=(3,), linear2__weight=(2, 3), linear2__bias=2)
POLICY = PolicyFile("reinforce", "CartPole-v1", {k: v.astype("f4") for k, v in LINEAR.items()})
MIXED = {
    **arrays(body__0__weight=(4, 3, 2, 2), norm__weight=4, norm__bias=4, table__weight=(5, 5)),
    "log_std": np.zeros(2, np.float16),
    "no_axis": np.array(7),
}
KINDS = {
    "body.0": "Conv2d",
    "norm": "LayerNorm",
    "table": "Embedding",
    "log_std": "Parameter",
    "no_axis": "Parameter",
}
NAMES = {"body": "trunk/conv", "log_std": "log_sigma"}


def write(path, tensors, metadata=None):
    path.write_bytes(to_bytes(tensors, metadata or {}))
    return path


def names(path):
    return set(from_bytes(path.read_bytes())[0])


@pytest.fixture
def files(tmp_path):
    return tmp_path / "src", tmp_path / "dst", tmp_path / "back"


def test_a_policy_goes_to_flax_and_back_to_the_same_bytes(files, capfd):
    src, dst, back = files
    write_policy(src, POLICY)
    assert main(["convert", str(src), str(dst), "--to", "flax"]) == 0
    out, err = capfd.readouterr()
    assert f"{dst}: 4 tensors in the layout of flax" in out
    assert "linear1.weight -> linear1/kernel, axes (1, 0)" in out
    assert err == ""
    tensors = safetensors.numpy.load_file(dst)
    assert set(tensors) == {
        f"params/linear{i}/{leaf}" for i in (1, 2) for leaf in ("kernel", "bias")
    }
    np.testing.assert_array_equal(
        tensors["params/linear1/kernel"], POLICY.tensors["linear1.weight"].T
    )
    assert main(["convert", str(dst), str(back), "--to", "torch"]) == 0
    assert back.read_bytes() == src.read_bytes()
    assert read_policy(back).agent == "reinforce"


def test_the_same_policy_always_makes_the_same_bytes(tmp_path):
    # The library orders metadata anew in every call: of eight, two would differ.
    written = set()
    for i in range(8):
        write_policy(tmp_path / str(i), POLICY)
        written.add((tmp_path / str(i)).read_bytes())
    assert len(written) == 1
    [data] = written
    assert list(from_bytes(data)[1]) == ["schema", "agent", "env", "sha256"]


@pytest.mark.parametrize("order", [["z", "a", "schema"], ["a", "schema", "z"]])
def test_metadata_is_kept_in_its_order(files, order):
    src, dst, back = files
    metadata = {key: f'{key} ünd \n"so' for key in order}
    write(src, LINEAR, metadata)
    convert_file(src, dst, kinds="Linear")
    kept = from_bytes(dst.read_bytes())[1]
    stated = json.loads(kept.pop("parity.convert"))
    assert len(kept.pop("sha256")) == 64
    assert kept == metadata
    assert stated == {"names": {}, "kinds": "Linear"}
    convert_file(dst, back)
    assert back.read_bytes() == src.read_bytes()


@pytest.mark.parametrize("metadata", [{}, {"by": "someone"}])
def test_every_kind_every_dtype_and_other_names_come_back_without_being_told_again(files, metadata):
    src, dst, back = files
    write(src, MIXED, metadata)
    convert_file(src, dst, names=NAMES, kinds=KINDS)
    assert names(dst) == {
        "params/trunk/conv/0/kernel",
        "params/norm/scale",
        "params/norm/bias",
        "params/table/embedding",
        "params/log_sigma",
        "params/no_axis",
    }
    converted = from_bytes(dst.read_bytes())[0]
    assert converted["params/trunk/conv/0/kernel"].shape == (2, 2, 3, 4)
    assert converted["params/log_sigma"].dtype == np.float16
    assert converted["params/no_axis"].shape == ()
    assert convert_file(dst, back).to == "torch"
    assert back.read_bytes() == src.read_bytes()


def test_a_file_that_began_in_flax_comes_back_too(files):
    src, dst, back = files
    write(
        src, {"params/Dense_0/kernel": RNG.normal(size=(3, 3)), "params/Dense_0/bias": np.ones(3)}
    )
    convert_file(src, dst, names={"linear1": "Dense_0"}, kinds={"linear1": "Linear"})
    assert names(dst) == {"linear1.weight", "linear1.bias"}
    convert_file(dst, back)
    assert back.read_bytes() == src.read_bytes()


ADAM = {
    f"adam.{moment}.{k}": RNG.normal(size=v.shape) for moment in "mv" for k, v in LINEAR.items()
}
COUNT = {"adam.count": np.array(3, np.int64)}
MOMENTUM = {f"sgd.momentum.{k}": RNG.normal(size=v.shape) for k, v in LINEAR.items()}


@pytest.mark.parametrize("state", [ADAM | COUNT, MOMENTUM], ids=["adam", "sgd"])
def test_optimizer_state_goes_with_the_parameters(files, state):
    src, dst, back = files
    write(src, LINEAR | state)
    convert_file(src, dst, kinds="Linear")
    converted = from_bytes(dst.read_bytes())[0]
    pairs = [("adam.m.", "adam/mu/"), ("adam.v.", "adam/nu/"), ("sgd.momentum.", "sgd/trace/")]
    for torch, flax in pairs:
        if f"{torch}linear1.weight" in state:
            expected = state[f"{torch}linear1.weight"].T
            np.testing.assert_array_equal(converted[f"{flax}linear1/kernel"], expected)
    assert len(converted) == len(LINEAR | state)
    convert_file(dst, back)
    assert back.read_bytes() == src.read_bytes()


def without(tensors, name):
    return {key: value for key, value in tensors.items() if key != name}


FLAX = {"params/a/kernel": np.zeros((2, 2)), "params/a/bias": np.zeros(2)}
BAD_FILES = [
    (LINEAR, {}, "kinds is None, accepted is the kinds of the layers"),
    (LINEAR, {"kinds": "Lineer"}, "kind of 'linear1' is 'Lineer'.*did you mean 'Linear'"),
    (LINEAR, {"kinds": {"linear1": "Linear"}}, "linear2.bias belongs to layer 'linear2', of which"),
    (LINEAR, {"kinds": "Linear", "names": {"liner1": "a"}}, "names is 'liner1'.*mean 'linear1'"),
    (LINEAR, {"kinds": "Linear", "names": {"linear1": "linear2"}}, "would both become linear2/"),
    (LINEAR, {"kinds": "Linear", "to": "torch"}, "that is for torch.* is 'torch', accepted is f"),
    (LINEAR | {"linear1.gain": np.ones(3)}, {"kinds": "Linear"}, "'linear1', a Linear, is 'gain'"),
    (without(LINEAR, "linear1.weight"), {"kinds": "Linear"}, "linear1.weight is missing"),
    (LINEAR | FLAX, {"kinds": "Linear"}, "of Flax's layout and linear1.bias of"),
    (LINEAR | ADAM, {"kinds": "Linear"}, "Adam's state in .* accepted is m, v and count, or none"),
    (LINEAR | COUNT, {"kinds": "Linear"}, "Adam's state in .* accepted is m, v and count, or none"),
    (LINEAR | without(MOMENTUM, "sgd.momentum.linear2.bias"), {"kinds": "Linear"},
     "sgd/trace/ lacks linear2.bias"),
    (MOMENTUM, {"kinds": "Linear"}, "accepted is one with parameters too"),
    (FLAX, {}, "kinds is None"),
    (FLAX, {"kinds": {"a": "Embedding"}}, "leaf of 'a', a Embedding, is 'bias'"),
    (FLAX, {"kinds": {"b": "Linear"}}, "a.bias belongs to layer 'a', of which"),
    (FLAX, {"kinds": {"b": "Linear"}, "names": {"b": "c"}}, "a.bias belongs to layer 'a'"),
    (FLAX, {"kinds": "Linear", "names": {"b": "c"}}, "an entry of names is 'b'"),
    (FLAX, {"kinds": "Linear", "names": {"a": "b"}}, "lacks b/bias, b/kernel and has a/bias"),
    (FLAX, {"kinds": "Linear", "to": "flax"}, "is 'flax', accepted is torch"),
    (without(FLAX, "params/a/kernel"), {"kinds": "Linear"}, "a.weight is missing"),
    (FLAX | {"batch_stats/a/mean": np.ones(2)}, {"kinds": "Linear"}, "names that begin with adam"),
    ({}, {"kinds": "Linear"}, "'empty', accepted is one with tensors"),
]  # fmt: skip


@pytest.mark.parametrize(("tensors", "options", "message"), BAD_FILES, ids=lambda x: str(x)[-40:])
def test_what_is_left_over_or_unknown_in_a_file_is_an_error_and_writes_nothing(
    files, tensors, options, message
):
    src, dst, _ = files
    write(src, tensors)
    with pytest.raises(UsageError, match=message):
        convert_file(src, dst, **options)
    assert not dst.exists()


def test_names_and_kinds_that_contradict_the_file_are_an_error(files):
    src, dst, back = files
    write(src, MIXED)
    convert_file(src, dst, names=NAMES, kinds=KINDS)
    for stated in ({"kinds": "Linear"}, {"names": {"body": "b"}}):
        with pytest.raises(UsageError, match="with which .* was converted"):
            convert_file(dst, back, **stated)
    convert_file(dst, back, names=NAMES, kinds=KINDS)


def test_a_file_that_is_there_is_replaced_only_on_request(files, capfd):
    src, dst, _ = files
    write_policy(src, POLICY)
    dst.write_text("mine")
    assert main(["convert", str(src), str(dst)]) == 2
    assert "accepted is a file that is not there yet, or --force" in capfd.readouterr().err
    assert dst.read_text() == "mine"
    assert main(["convert", str(src), str(dst), "--force"]) == 0
    assert names(dst) == {"params/" + k for k in
        ("linear1/kernel", "linear1/bias", "linear2/kernel", "linear2/bias")}  # fmt: skip


def test_the_command_takes_names_and_kinds(files, capfd):
    src, dst, _ = files
    write(src, LINEAR)
    stated = ["--kinds", "linear1=Linear, linear2=Linear", "--names", "linear1=Dense_0"]
    assert main(["convert", str(src), str(dst), *stated]) == 0
    assert "params/Dense_0/kernel" in names(dst)
    assert "params/linear2/kernel" in names(dst)


def test_numbers_that_numpy_lacks_are_an_error(files):
    src, dst, _ = files
    header = b'{"linear1.bias":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
    src.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(UsageError, match="has 'BF16' numbers, which NumPy lacks"):
        convert_file(src, dst, kinds="Linear")


BAD_CALLS = [
    (["convrt"], "'convrt'.*did you mean 'convert'"),
    ([], "Expected one of"),
    (["convert"], "SRC|required"),
    (["convert", "nowhere", "dst"], "file 'nowhere' cannot be read"),
    (["convert", "damaged", "dst"], "file 'damaged' cannot be read"),
    (["convert", "nowhere", "dst", "--to", "flox"], "did you mean 'flax'"),
    (["convert", "nowhere", "dst", "--name", "a=b"], "--name"),
    (["convert", "policy", "dst", "--names", "linear1"], "names is 'linear1', accepted is linear"),
    (["convert", "policy", "dst", "--names", "a=b,a=c"], "each name once"),
    (["convert", "policy", "no/dst"], "file 'no/dst' cannot be written"),
]  # fmt: skip


@pytest.mark.parametrize(("args", "message"), BAD_CALLS, ids=lambda x: str(x)[:50])
def test_a_bad_call_exits_2_with_one_clear_message(tmp_path, monkeypatch, capfd, args, message):
    import re

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    write_policy("policy", POLICY)
    (tmp_path / "damaged").write_bytes(b"no tensors")
    try:
        code = main(args)
    except SystemExit as exit:  # tyro's own errors
        code = exit.code
    stderr = capfd.readouterr().err
    assert code == 2
    assert "Traceback" not in stderr
    assert re.search(message, " ".join(stderr.split())), stderr
    assert not (tmp_path / "dst").exists()


def test_every_command_is_a_dataclass_that_runs():
    import pkgutil

    for name, command in COMMANDS.items():
        assert callable(pkgutil.resolve_name(command).run), name


def test_convolutions_recurrent_layers_and_attention_come_back_to_the_same_bytes(files):
    src, dst, back = files
    tensors = arrays(
        conv__weight=(3, 4, 3, 3), conv__bias=3, fc__weight=(2, 27), fc__bias=2,
        rnn__weight_ih_l0=(12, 3), rnn__weight_hh_l0=(12, 3), rnn__bias_ih_l0=12,
        att__in_proj_weight=(12, 4), att__in_proj_bias=12, att__out_proj__weight=(4, 4),
        att__out_proj__bias=4,
    )  # fmt: skip
    kinds = {
        "conv": "Conv2d",
        "fc": "Linear[3x3x3]",
        "rnn": "LSTM",
        "att": "MultiheadAttention[2]",
    }
    write(src, tensors | {"rnn.bias_hh_l0": np.zeros(12)})
    convert_file(src, dst, kinds=kinds)
    assert {"params/rnn/l0/ii/kernel", "params/att/query/kernel"} <= names(dst)
    convert_file(dst, back)
    assert back.read_bytes() == src.read_bytes()
    write(src, tensors | {"rnn.bias_hh_l0": np.ones(12)})
    with pytest.raises(UsageError, match=r"rnn.bias_hh_l0 \(part 0 of 4\) is not zeros"):
        convert_file(src, dst, kinds=kinds, force=True)


def test_a_count_that_a_file_would_lose_is_an_error(files):
    src, dst, _ = files
    stats = arrays(bn__running_mean=3, bn__running_var=3)
    write(src, stats | {"bn.num_batches_tracked": np.array(7)})
    with pytest.raises(UsageError, match="bn.num_batches_tracked, for which Flax has no place"):
        convert_file(src, dst, kinds="BatchNorm1d")
    assert not dst.exists()
