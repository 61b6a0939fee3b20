"""What `preflight` must see: each thing that spoils a comparison, made to happen."""

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import torch

import parity
from parity import Preflight, installed, preflight, probes, sides
from parity.preflight import Finding, Findings

ROOT = Path(__file__).parent.parent


def findings(probe):
    return {finding.name: finding for finding in probes.PROBES[probe]()}


def verdicts(found):
    return {name: finding.verdict for name, finding in found.items() if finding.verdict != "ok"}


def in_a_process(code, **variables):
    """What a fresh process finds, by name."""
    code = f"{code}\nfrom parity import preflight\nprint(preflight(strict=True).to_json())"
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    report = json.loads(result.stdout.splitlines()[-1])
    return report, {finding["name"]: finding for finding in report["findings"]}


@pytest.fixture(scope="module")
def found():
    return preflight()


def test_nothing_spoils_the_comparisons_of_this_test_run(found):
    assert found.spoiling == [], str(found)


def test_looking_changes_nothing(found):
    def state():
        return (
            jax.config.jax_enable_x64,
            jax.config.jax_debug_nans,
            torch.get_num_threads(),
            torch.get_default_dtype(),
            torch.get_float32_matmul_precision(),
            np.geterr(),
        )

    before = state()
    preflight()
    assert state() == before


# --- measured


def rounded_to(bits):
    """A product whose factors are rounded to so many bits, as TF32 (11) and bfloat16 (8) do."""

    def product(a, b):
        a, b = (np.float32(x) for x in (a, b))
        short = [np.ldexp(np.round(np.ldexp(m, bits)), e - bits) for m, e in map(np.frexp, (a, b))]
        return short[0].astype(float) @ short[1].astype(float)

    return product


@pytest.mark.parametrize(("bits", "verdict"), [(24, "ok"), (11, "spoils"), (8, "spoils")])
def test_a_product_of_rounded_factors_is_seen_by_its_error(bits, verdict):
    finding = probes._matmul("product", rounded_to(bits), "float32", "compute exactly")
    assert finding.verdict == verdict, finding.state


def test_a_float64_product_that_was_made_in_float32_is_seen():
    def product(a, b):
        return (a.astype(np.float32) @ b.astype(np.float32)).astype(float)

    assert probes._matmul("product", product, "float64", "").verdict == "spoils"
    assert probes._matmul("product", product, "float32", "").verdict == "ok"


@pytest.mark.parametrize("error", [np.nan, np.inf])
def test_a_product_that_is_not_finite_is_no_exact_one(error):
    finding = probes._matmul("product", lambda a, b: a @ b + error, "float32", "")
    assert finding.verdict == "spoils"


def test_subnormals_taken_for_zero_are_measured():
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor can't flush")
    try:
        flushing = findings("numpy") | findings("torch")
    finally:
        torch.set_flush_denormal(False)
    assert verdicts(flushing) == {"numpy subnormals": "spoils", "torch subnormals": "note"}
    assert flushing["numpy subnormals"].state == "taken for zero in float32, float64"
    assert verdicts(findings("numpy") | findings("torch")) == {}


@pytest.mark.parametrize("direction", sides.rounding_directions())
def test_a_rounding_direction_left_behind_is_measured(direction):
    with sides.rounding(direction):
        found = findings("numpy")
    assert verdicts(found) == {"numpy rounding": "spoils"}


def test_numpy_errors_that_are_raised_spoil():
    with np.errstate(under="raise"):
        found = findings("numpy")
    assert verdicts(found) == {"numpy errors": "spoils"}
    assert "under" in found["numpy errors"].state


# --- settings


def test_torchs_default_dtype_spoils():
    torch.set_default_dtype(torch.float64)
    try:
        assert verdicts(findings("torch")) == {"torch default dtype": "spoils"}
    finally:
        torch.set_default_dtype(torch.float32)


def test_autocast_spoils():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = verdicts(findings("torch"))
    assert found["torch autocast on cpu"] == "spoils"
    assert found["torch matmul float32 on cpu"] == "spoils"


def test_a_lower_matmul_precision_is_noted():
    torch.set_float32_matmul_precision("high")
    try:
        found = findings("torch")
    finally:
        torch.set_float32_matmul_precision("highest")
    assert verdicts(found)["torch TF32"] == "note"
    assert "'high'" in found["torch TF32"].state


def test_several_torch_threads_are_noted():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert verdicts(findings("torch")) == {"torch threads": "note"}
    finally:
        torch.set_num_threads(before)


def test_x64_for_the_whole_process_is_noted():
    with jax.enable_x64(True):
        assert verdicts(findings("jax"))["jax float64"] == "note"


@pytest.mark.parametrize("option", ["jax_debug_nans", "jax_debug_infs", "jax_disable_jit"])
def test_jaxs_debugging_spoils_and_does_not_stop_the_measurements(option):
    jax.config.update(option, True)
    try:
        found = findings("jax")
    finally:
        jax.config.update(option, False)
    name = "jax jit" if option == "jax_disable_jit" else "jax debugging"
    assert found[name].verdict == "spoils"
    assert found["jax compiled arithmetic"].verdict == "ok"


def test_an_x64_that_does_not_work_spoils(monkeypatch):
    import contextlib

    monkeypatch.setattr(jax, "enable_x64", lambda enabled: contextlib.nullcontext())
    found = findings("jax")
    assert found["jax float64"].verdict == "spoils"
    assert found["jax matmul float64"].verdict == "spoils"


def test_a_compiler_that_reorders_sums_is_measured_and_its_flags_are_named():
    flags = "--xla_cpu_enable_fast_math=true --xla_cpu_fast_math_honor_nans=false"
    report, found = in_a_process("", XLA_FLAGS=flags)
    assert not report["ok"]
    assert found["jax compiled arithmetic"]["verdict"] == "spoils"
    assert found["jax compiled arithmetic"]["state"] == "sums are reordered, NaN is not seen"
    assert found["XLA_FLAGS"]["state"] == "--xla_cpu_enable_fast_math=true"


@pytest.mark.parametrize(
    ("flags", "verdict"),
    [
        ("--xla_force_host_platform_device_count=2", "ok"),
        ("--xla_cpu_enable_fast_math=false", "ok"),
        ("--xla_cpu_enable_fast_min_max=true", "spoils"),
        ("--xla_dump_to=x --xla_cpu_enable_fast_math", "spoils"),
    ],
)
def test_flags_that_change_arithmetic_are_told_from_others(monkeypatch, flags, verdict):
    monkeypatch.setenv("XLA_FLAGS", flags)
    assert findings("environment")["XLA_FLAGS"].verdict == verdict


# --- what is installed


def test_missing_frameworks_are_findings_and_no_crash():
    code = "import sys; sys.modules['jax'] = sys.modules['torch'] = None"
    report, found = in_a_process(code)
    assert report["ok"]
    for name in ("jax", "torch"):
        assert found[name]["state"] == f"{name} is not installed"
        assert found[name]["verdict"] == "note"
        assert "pip install" in found[name]["remedy"]
    assert found["numpy rounding"]["verdict"] == "ok"


def test_a_framework_that_breaks_is_a_finding_that_spoils(monkeypatch):
    def broken():
        yield Finding("first", "fine")
        raise RuntimeError("no backend\nand a long story")

    monkeypatch.setattr(probes, "PROBES", {"jax": broken})
    found = preflight(strict=True)
    assert [finding.name for finding in found.findings] == ["first", "jax"]
    assert found.spoiling[0].state == "can't be measured: RuntimeError: no backend"


REQUIRES = [
    "jax<0.12,>=0.10.2",
    "numpy<3,>=2.1",
    'torch<3,>=2.11; extra == "torch"',
    'policy-gradient-parity[torch]; extra == "parity"',
    'mpmath>=1.3; extra == "parity"',
    'ruff>=0.12; extra == "dev"',
]


def test_versions_are_held_against_the_metadata(monkeypatch):
    installed_here = {"jax": "0.12.0", "numpy": "2.2", "torch": "2.13.0+cpu"}

    def version(name):
        if name not in installed_here:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed_here[name]

    monkeypatch.setattr(installed.importlib.metadata, "requires", lambda name: REQUIRES)
    monkeypatch.setattr(installed.importlib.metadata, "version", version)
    found = findings("versions")
    assert {name: finding.verdict for name, finding in found.items()} == {
        "version of jax": "spoils",
        "version of numpy": "ok",
        "version of torch": "ok",
        "version of mpmath": "note",
    }
    assert found["version of jax"].remedy == "pip install 'jax<0.12,>=0.10.2'"


def test_a_checkout_that_is_not_installed_is_noted(monkeypatch):
    def requires(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(installed.importlib.metadata, "requires", requires)
    assert verdicts(findings("versions")) == {"versions": "note"}


# --- the report and the command

SPOILT = (Finding("a", "good"), Finding("long name", "bad", "spoils", "mend it"))


def test_only_a_strict_report_fails():
    relaxed, strict = Findings(SPOILT), Findings(SPOILT, strict=True)
    assert relaxed.ok
    relaxed.assert_ok()
    assert not strict.ok
    with pytest.raises(AssertionError, match="mend it"):
        strict.assert_ok()
    Findings(SPOILT[:1], strict=True).assert_ok()


def test_the_table_is_plain_and_says_what_to_do():
    assert str(Findings(SPOILT)).splitlines() == [
        "ok      a          good",
        "spoils  long name  bad",
        "                   -> mend it",
        "1 thing spoils a comparison here",
    ]


def test_everything_that_is_not_ok_says_what_to_do(found):
    for finding in found.findings:
        assert finding.verdict in ("ok", "note", "spoils")
        assert bool(finding.remedy) == (finding.verdict != "ok"), finding
    assert json.loads(found.to_json())["findings"][0] == found.findings[0]._asdict()


@pytest.mark.parametrize(("strict", "code"), [(False, 0), (True, 1)])
def test_the_command_exits_with_1_if_strict_and_spoilt(monkeypatch, capsys, strict, code):
    monkeypatch.setattr(probes, "PROBES", {"all": lambda: iter(SPOILT)})
    assert Preflight(strict=strict, json=True).run() == code
    assert json.loads(capsys.readouterr().out)["ok"] == (not strict)
    assert Preflight(strict=strict).run() == code
    assert "mend it" in capsys.readouterr().out


NAMES = """
import importlib, inspect, sys
def fresh():
    for name in [name for name in sys.modules if name.partition(".")[0] == "parity"]:
        del sys.modules[name]
for story in ("import parity.preflight", "from parity.preflight import Finding",
              "from parity import preflight", "import parity.probes",
              "import parity; parity.Preflight",
              "from parity.preflight import preflight; import parity.probes"):
    fresh()
    exec(story, {})
    import parity
    assert inspect.isfunction(parity.preflight), (story, parity.preflight)
    assert importlib.import_module("parity.preflight").preflight is parity.preflight, story
    assert inspect.isfunction(parity.preflight), (story, parity.preflight)
"""


def test_the_function_wins_over_its_file_in_whatever_order_they_are_imported():
    subprocess.run(
        [sys.executable, "-c", NAMES], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True
    )


def test_the_new_names_are_public():
    assert {"NoiseTape", "Preflight", "preflight", "strategies"} <= set(parity.__all__)
