"""What fuzzing kept, and changes of it: each is read, or refused by name. Nothing else is raised.

(`make fuzz TIME=600` looks for more.)
"""

import random

import pytest

from benchmarks import results
from benchmarks.fuzz import __main__ as fuzz
from benchmarks.fuzz.mutations import mutated
from benchmarks.fuzz.targets import CORPUS, TARGETS, corpus, packed, unpacked

NUM_CHANGES = 60


@pytest.mark.parametrize("name", TARGETS)
def test_what_fuzzing_kept_is_read_or_refused_by_name(name):
    target = TARGETS[name]
    assert target((CORPUS / name / "good.bin").read_bytes())
    for path in corpus(name):
        target(path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_changes_of_it_are_too_and_not_all_are_refused_at_the_first_look(name):
    rng, good = random.Random(0), (CORPUS / name / "good.bin").read_bytes()
    changed = [mutated(name, good, rng) for _ in range(NUM_CHANGES)]
    assert len({*changed}) > NUM_CHANGES / 2
    is_read = [TARGETS[name](data) for data in changed]
    assert any(is_read)


def test_the_page_has_the_figures_that_were_kept():
    assert results.table_in(fuzz.PAGE, fuzz.NAME) == fuzz.table()
    seen = results.load(fuzz.NAME)["targets"]
    assert seen.keys() == TARGETS.keys()
    assert sum(each["seconds"] for each in seen.values()) >= 600


def test_the_corpus_is_small():
    assert sum(path.stat().st_size for path in CORPUS.rglob("*")) < 300_000


def test_a_checkpoint_is_packed_and_unpacked():
    good = (CORPUS / "checkpoint" / "good.bin").read_bytes()
    assert packed(unpacked(good)) == good
    assert [*unpacked(b"\xff").values()] == [b"", b"", b""]
