"""What is read of a file that somebody else wrote: what its kind can need, and no tricks."""

import json
import os
from pathlib import Path

import pytest

from pgcore.errors import UsageError
from pgcore.files import reading, sealed_json
from pgcore.files.reading import Unfit, open_file, parse_json, read_file
from pgcore.files.schema import read_policy
from pgcore.files.sealed_json import unseal
from pgcore.files.sums import digest, read_sums
from pgcore.files.tensors import LARGEST_FILE, from_bytes, read_tensors
from pgcore.runs.folder import read_table


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1, "b": {"c": 1, "c": 1}}', "the key 'c' twice"),
        ("[NaN]", "the number NaN, which is not finite"),
        ("[-Infinity]", "the number -Infinity, which is not finite"),
        ("[1e999]", "the number 1e999, which is not finite"),
        ("[" * 100_000, "recursion"),
        ("[1, 2, 3, 4]", "it has more than 3 values"),
        ('{"a": [1], "b": {}}', "it has more than 3 values"),
    ],
    ids=lambda text: text[:20],
)
def test_json_that_says_two_things_or_too_many_is_refused(monkeypatch, text, said):
    monkeypatch.setattr(reading, "MOST_VALUES", 3 if "values" in said else 10**6)
    with pytest.raises(ValueError, match=said):
        parse_json(text)


def test_sealed_json_is_a_table_that_can_be_written_again(monkeypatch):
    with pytest.raises(ValueError, match="it holds no table"):
        unseal(b"[]")
    deep: list[object] = []
    for _ in range(100_000):  # how deep the reader goes is Python's affair
        deep = [deep]
    monkeypatch.setattr(sealed_json, "parse_json", lambda _: {"a": deep})
    with pytest.raises(ValueError, match="recursion"):
        unseal(b"")


def test_what_is_no_file_is_refused_and_not_left_open(tmp_path, monkeypatch):
    opened, really = [], os.open
    monkeypatch.setattr(os, "open", lambda *how: opened.append(really(*how)) or opened[-1])
    with pytest.raises(Unfit, match="it is no file"):
        open_file(tmp_path)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(opened.pop())


def test_a_file_that_says_it_is_empty_is_read_no_further_than_it_may_be():
    assert len(read_file(Path("/proc/self/status"), 10)) == 10


LARGEST = {
    "config.json": (reading.LARGEST_JSON, lambda path: read_table(path)),
    "SHA256SUMS": (10_000, lambda path: read_sums(path.parent)),
    "result.json": (reading.LARGEST_JSON, digest),
    "policy.safetensors": (LARGEST_FILE, read_policy),
}


@pytest.mark.parametrize("name", LARGEST)
def test_a_file_that_is_larger_than_its_kind_can_be_is_not_read(tmp_path, name):
    largest, read = LARGEST[name]
    with (tmp_path / name).open("wb") as file:
        file.truncate(largest + 1)
    with pytest.raises((UsageError, Unfit), match=f"it has {largest + 1:,} bytes, more than"):
        read(tmp_path / name)


@pytest.mark.parametrize(
    ("length", "size"), [(93, 100), (reading.LARGEST_JSON + 1, reading.LARGEST_JSON + 100)]
)
def test_a_header_ends_with_the_file_and_is_no_longer_than_any_is(tmp_path, length, size):
    path = tmp_path / "x.safetensors"
    with path.open("wb") as file:
        file.write(length.to_bytes(8, "little"))
        file.truncate(size)
    said = f"its header would have {length:,} bytes, and it has {size:,}"
    with pytest.raises(UsageError, match=said):
        read_tensors(path, "x")


@pytest.mark.parametrize("metadata", [["sha256"], {"sha256": 5}, {"sha256": "\ud800" * 64}])
def test_a_seal_that_is_no_digest_is_none(metadata):
    header = json.dumps({"__metadata__": metadata}).encode()
    with pytest.raises(UsageError, match="x (is|cannot be read: its header is) damaged"):
        from_bytes(len(header).to_bytes(8, "little") + header, "x")


def test_nothing_is_read_of_tensors_that_the_header_does_not_name(tmp_path, monkeypatch):
    path, read = tmp_path / "x.safetensors", []
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(1000))
    monkeypatch.setattr("pgcore.files.tensors.from_bytes", lambda data, *_: read.append(data))
    with pytest.raises(UsageError, match="tensors of 4 bytes, where 1,000 follow"):
        read_tensors(path, "x")
    assert read == []
