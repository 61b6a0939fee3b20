"""The file of a recording: the same to the last bit, or refused by name. No framework is needed."""

import json
import math
import os
import time
from pathlib import Path

import numpy as np
import pytest

import parity
from parity.recordings.leaves import DTYPES, Leaf
from parity.recordings.recording import Recording
from parity.recordings.schema import to_bytes
from parity.recordings.sealed import SCHEMA, sealed, unsealed
from parity.yardstick import Bound
from pgcore.errors import UsageError
from pgcore.files.reading import LARGEST_JSON

RNG = np.random.default_rng(0)


def examples(dtype):
    """Every kind of bits: any at all, where a dtype has no bits that mean nothing."""
    kind = np.dtype("uint16" if dtype == "bfloat16" else dtype)
    size = (3, 5)
    if dtype == "bool":
        many = RNG.random(size) < 0.5
    else:
        many = np.frombuffer(RNG.bytes(15 * kind.itemsize), kind).reshape(size)
    arrays = [many, many[::2, ::-2], many.T, many[:0], many[0, 0], np.asfortranarray(many)]
    if dtype == "bfloat16":
        return [Leaf(dtype, (x.astype(np.uint32) << 16).view(np.float32)) for x in arrays]
    return [Leaf(dtype, np.asarray(x)) for x in arrays]


def bits(leaf):
    return leaf.dtype, leaf.array.shape, leaf.array.dtype, leaf.array.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_come_back_to_the_last_bit_whatever_they_hold(tmp_path, dtype):
    leaves = {f"array {i}": leaf for i, leaf in enumerate(examples(dtype))}
    path = tmp_path / "x.parity"
    path.write_bytes(sealed(leaves, {"told": [1, "ü"]}))
    found, told = unsealed(path, "x")
    assert told == {"told": [1, "ü"]}
    assert {name: bits(leaf) for name, leaf in found.items()} == {
        name: bits(leaf) for name, leaf in leaves.items()
    }


@pytest.fixture(scope="module")
def small():
    """A file with three arrays, one of them empty."""
    leaves = {
        "float": Leaf("float64", np.array([1.5, -2.0])),
        "flag": Leaf("bool", np.array([True, False, True])),
        "none": Leaf("float32", np.zeros((0, 2), np.float32)),
    }
    return sealed(leaves, {"stages": []})


def refused(path, data):
    path.write_bytes(data)
    with pytest.raises(UsageError) as error:
        unsealed(path, f"recording {path.name!r}")
    assert "recording 'x.parity'" in str(error.value)
    return str(error.value)


def test_any_byte_flipped_is_refused_and_named(tmp_path, small):
    path = tmp_path / "x.parity"
    end = 8 + int.from_bytes(small[:8], "little")
    header = json.loads(small[8:end])
    for at in range(len(small)):
        for bit in (0, 5):
            data = bytearray(small)
            data[at] ^= 1 << bit
            said = refused(path, bytes(data))
            if at < end:
                assert "header" in said or "end:" in said, (at, bit, said)
            else:
                (name,) = [
                    name
                    for name, entry in header.items()
                    if name != "__metadata__"
                    and entry["data_offsets"][0] <= at - end < entry["data_offsets"][1]
                ]
                assert f"array {name!r}" in said, (at, bit, said)


def test_a_file_that_is_cut_anywhere_is_refused(tmp_path, small):
    for length in range(len(small)):
        refused(tmp_path / "x.parity", small[:length])
    last = refused(tmp_path / "x.parity", small[:-1])
    assert "array 'flag': the file ends 1 bytes early" in last


@pytest.mark.parametrize("more", [b"\0", b"x" * 100])
def test_what_follows_the_last_array_is_refused(tmp_path, small, more):
    assert f"{len(more)} bytes follow" in refused(tmp_path / "x.parity", small + more)


def resealed(small, change):
    """A file whose header was changed by someone who knows how its digest is made."""
    import hashlib

    end = 8 + int.from_bytes(small[:8], "little")
    header = json.loads(small[8:end])
    header["__metadata__"]["sha256"] = "0" * 64
    change(header)
    text = json.dumps(header, separators=(",", ":")).encode()
    text = text.ljust(-(-len(text) // 8) * 8)
    start = len(text).to_bytes(8, "little") + text
    return start.replace(b"0" * 64, hashlib.sha256(start).hexdigest().encode()) + small[end:]


def set_in(*keys, value):
    def change(header):
        for key in keys[:-1]:
            header = header[key]
        header[keys[-1]] = value

    return change


HOSTILE = {
    "a huge shape": set_in("float", "shape", value=[2**40, 2**40]),
    "offsets beyond the file": set_in("float", "data_offsets", value=[0, 2**50]),
    "offsets that overlap": set_in("float", "data_offsets", value=[3, 16]),
    "offsets that are none": set_in("float", "data_offsets", value="all"),
    "a dtype that is none": set_in("float", "dtype", value="F1024"),
    "a dtype that NumPy lacks": set_in("float", "dtype", value="F8_E4M3"),
    "a nest without end": set_in("__metadata__", "recording", value="[" * 100_000),
    "digests of nothing": set_in("__metadata__", "arrays", value="{}"),
    "an array that is a number": set_in("float", value=3),
    "digests that are a list": set_in("__metadata__", "arrays", value='["float"]'),
    "no entry at all": lambda header: header["__metadata__"].pop("recording"),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_header_with_a_right_digest_is_refused_at_once(tmp_path, small, change):
    started = time.perf_counter()
    refused(tmp_path / "x.parity", resealed(small, change))
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize("length", [2**63, 2**32, 10**6, 0, 1])
def test_the_length_of_a_header_is_not_believed(tmp_path, small, length):
    said = refused(tmp_path / "x.parity", length.to_bytes(8, "little") + small[8:])
    assert ("it should end at byte" in said) == (length > len(small))


def test_a_header_is_read_no_further_than_any_goes(tmp_path, small):
    data = (LARGEST_JSON + 1).to_bytes(8, "little") + small[8:]
    said = refused(tmp_path / "x.parity", data.ljust(LARGEST_JSON + 100))
    assert "header: it has 8,000,001 bytes" in said


def test_what_no_reader_would_take_is_not_written(monkeypatch):
    monkeypatch.setattr("parity.recordings.sealed.LARGEST_JSON", 100)
    with pytest.raises(UsageError, match="at most 100 bytes: record fewer stages in one file"):
        sealed({}, {"stages": []})


def test_a_newer_schema_is_refused_by_name(tmp_path, small):
    newer = set_in("__metadata__", "schema", value=f"{SCHEMA}2")
    said = refused(tmp_path / "x.parity", resealed(small, newer))
    assert "is of schema 2, accepted is schema 1" in said


@pytest.mark.parametrize(
    "told",
    [[], {}, {"inputs": 3}, {"inputs": {"map": []}, "noise": None, "stages": [{}]}],
    ids=str,
)
def test_metadata_that_record_does_not_write_is_refused(tmp_path, told):
    path = tmp_path / "x.parity"
    path.write_bytes(sealed({}, told))
    with pytest.raises(UsageError, match="x.parity.*metadata that parity.record does not write"):
        Recording.load(path)


def test_a_recording_of_before_kinds_and_deciders_is_read():
    path = Path(__file__).parent / "fuzz_corpus" / "recording" / "good.bin"
    assert not any(word in path.read_bytes() for word in (b"kinds", b"decided"))
    for stage in Recording.load(path).stages.values():
        assert stage.kinds is None
        assert {output.decided for output in stage.outputs.values()} == {None}


@pytest.mark.parametrize("data", [b"", b"hello", b"x" * 5000, b"\x00" * 64, b"PK\x03\x04" * 20])
def test_another_file_is_refused(tmp_path, data):
    said = refused(tmp_path / "x.parity", data)
    assert ("does not begin as the files of parity.record do" in said) == (len(data) > 8)


# --- writing -------------------------------------------------------------------------------------


def write(path, values=(1.0, 2.0)):
    with parity.record(path) as rec:
        rec.inputs(x=np.array(values), tree={"list": [np.arange(3), 2.5, "text"], "nan": math.nan})
        rec.stage("sum", total=np.sum(values), count=len(values))
        rec.call("double", lambda x: 2 * x, framework="numpy")


def test_a_recording_comes_back_as_it_was(tmp_path):
    write(tmp_path / "x.parity")
    found = Recording.load(tmp_path / "x.parity")
    assert found.inputs["x"].tolist() == [1, 2]
    numbers, real, text = found.inputs["tree"]["list"]
    assert (numbers.tolist(), numbers.dtype, real, text) == ([0, 1, 2], np.int64, 2.5, "text")
    assert math.isnan(found.inputs["tree"]["nan"])
    double = found.stages["double"]
    assert [*double.outputs["value"].runs] == ["float64", "float32"]
    assert double.outputs["value"].bounds["float64"].value > 0
    assert found.stages["sum"].place.code.startswith("rec.stage")
    assert "total: float64 []" in str(found)


def test_shapes_numbers_and_bounds_come_back_to_the_last_bit(tmp_path):
    with parity.record(tmp_path / "a") as rec:
        rec.stage("s", wide=np.zeros((2, 3)), high=np.zeros((3, 2)), number=0.5)
    found = Recording.load(tmp_path / "a")
    outputs = found.stages["s"].outputs
    runs = {path: output.runs["float64"] for path, output in outputs.items()}
    assert {path: leaf.array.shape for path, leaf in runs.items()} == {
        "wide": (2, 3),
        "high": (3, 2),
        "number": (),
    }
    assert [path for path, leaf in runs.items() if leaf.is_number] == ["number"]
    third = {"float64": Bound(1 / 3, "inputs")}
    bounded = {"wide": outputs["wide"]._replace(bounds=third)}
    (tmp_path / "b").write_bytes(
        to_bytes(found._replace(stages={"s": found.stages["s"]._replace(outputs=bounded)}))
    )
    assert Recording.load(tmp_path / "b").stages["s"].outputs["wide"].bounds == third


def test_the_same_twice_is_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("there", [True, False])
def test_a_block_that_raises_leaves_no_file_and_an_old_one_as_it_was(tmp_path, there):
    path = tmp_path / "x.parity"
    if there:
        write(path)
    before = path.read_bytes() if there else None

    def broken(rec):
        rec.stage("a", x=np.ones(2))
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        recorded(path, broken)
    assert os.listdir(tmp_path) == (["x.parity"] if there else [])
    assert before is None or path.read_bytes() == before


def test_arrays_are_copied_when_they_are_given(tmp_path):
    x = np.ones(3)
    with parity.record(tmp_path / "x") as rec:
        rec.inputs(x=x)
        rec.stage("a", x=x)
        x[:] = 7
    found = Recording.load(tmp_path / "x")
    assert found.inputs["x"].tolist() == [1, 1, 1]
    assert found.stages["a"].outputs["x"].runs["float64"].array.tolist() == [1, 1, 1]


def recorded(path, action):
    with parity.record(path) as rec:
        action(rec)


@pytest.mark.parametrize(
    ("action", "said"),
    [
        (lambda rec: None, "a recording is 'empty'"),
        (lambda rec: rec.stage("inputs", x=np.ones(1)), "stage is 'inputs'"),
        (lambda rec: rec.stage("", x=np.ones(1)), "stage is ''"),
        (lambda rec: rec.stage("a"), "stage 'a' is 'empty'"),
        (lambda rec: rec.stage("a", {"b/c": 1, "b": {"c": 2}}), "two leaves of the path 'b/c'"),
        (lambda rec: rec.stage("a", x=np.ones(1) * 1j), "complex128.*imaginary"),
        (lambda rec: rec.stage("a", x="text"), "'x' of stage 'a' is of str"),
        (lambda rec: [rec.stage("a", x=1.0) for _ in range(2)], "stage is 'a'.*has yet"),
        (lambda rec: [rec.inputs(x=1.0) for _ in range(2)], "input is 'x'"),
        (lambda rec: rec.inputs(x={3: np.ones(1)}), "the key 3"),
        (lambda rec: rec.noise(3), "noise is 'int'"),
        (lambda rec: rec.call("a", lambda x: x, {"x": 1.0}, framework="numpy"), "floating array"),
        (lambda rec: rec.call("a", lambda x: x, framework="numpy"), "'x'"),
        (lambda rec: rec.call("a", 3, {"x": np.ones(1)}), "of type int"),
        (lambda rec: rec.call("a", abs, {"x": np.ones(1)}, framework="jaxx"), "mean 'jax'"),
    ],
)
def test_what_can_not_be_recorded_is_refused_by_name(tmp_path, action, said):
    with pytest.raises(UsageError, match=said):
        recorded(tmp_path / "x", action)
    assert not (tmp_path / "x").exists()


def test_a_folder_that_is_not_there_is_refused_before_anything_is_computed(tmp_path):
    with pytest.raises(UsageError, match="nowhere"):
        parity.record(tmp_path / "nowhere" / "x")


def test_a_recorder_is_used_in_its_block_alone(tmp_path):
    with pytest.raises(UsageError, match="outside of its block"):
        parity.record(tmp_path / "x").stage("a", x=1.0)


def test_noise_comes_back_and_is_compared(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        tape = parity.NoiseTape("reinforce", 4, 2, 2, seed=seed)
        with parity.record(tmp_path / name) as rec:
            rec.noise(tape, updates=3)
            rec.stage("one", x=1.0)
    found = Recording.load(tmp_path / "a").noise
    assert (found.update(2).policy == parity.NoiseTape("reinforce", 4, 2, 2).update(2).policy).all()
    assert parity.compare(tmp_path / "a", tmp_path / "b").ok
    report = parity.compare(tmp_path / "a", tmp_path / "c")
    assert report.failures[0].stage == "noise"
    assert "noise differ" in str(report)
