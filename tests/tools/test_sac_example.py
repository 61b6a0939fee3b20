"""The port of `docs/sac.md`: what its page says was printed, and more mistakes, each found."""

import contextlib
import importlib.util
import io
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import parity
from tests.tools.pages import require_shown

PAGE = (Path(__file__).parents[2] / "docs" / "sac.md").read_text("utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


@contextlib.contextmanager
def loaded(name, code, folder):
    """The code as a module that has been run; Flax looks modules up by their names."""
    file = folder / f"{name}.py"
    file.write_text(code, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, file)
    sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(sys.modules[name])
        yield sys.modules[name]
    finally:
        del sys.modules[name]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page's code, which has been run, and what it printed."""
    printed = io.StringIO()
    with contextlib.ExitStack() as stack:
        with contextlib.redirect_stdout(printed):
            code = "\n".join(blocks("python"))
            module = stack.enter_context(loaded("sac_page", code, tmp_path_factory.mktemp("sac")))
        yield module, printed.getvalue().splitlines()


@pytest.mark.takes_long
def test_the_reports_on_the_page_are_what_is_printed(page):
    """In order and word by word; its numbers to 1 %, for processors round differently."""
    shown = [line for text in blocks("text") for line in text.splitlines()]
    assert len(shown) > 10
    require_shown(shown, page[1])


RIGHT = (
    "jnp.log(1 - jnp.tanh(u) ** 2 + 1e-6)",
    "2 * (jnp.log(2) - u - jax.nn.softplus(-2 * u))",
)
SUM = "- log_det).sum(-1)"
MISTAKES = {
    "not summed": (SUM, "- log_det)", ["log_prob", "loss"]),
    # The mean of α·log_prob[i] − q[j] over all i and j is the right one: the loss says nothing.
    "an axis is kept": (SUM, "- log_det).sum(-1, keepdims=True)", ["log_prob"]),
    "the larger critic": ("jnp.minimum", "jnp.maximum", ["q", "loss"]),
    "one critic twice": ("self.q2(pair))", "self.q1(pair) + 0 * self.q2(pair))", ["q", "loss"]),
    "half of the logarithm": (
        "jnp.exp(jnp.clip(log_std, -5, 2))",
        "jnp.exp(jnp.clip(log_std, -5, 2) / 2)",
        ["u", "action", "log_prob", "q", "loss"],
    ),
}


def parted(page, folder, old, new):
    """The outputs that part, in the order of the report, once the right port is changed so.

    On two observations: then a log-probability [B, A] that is not summed goes with q [B].
    """
    code = "".join(blocks("python")[:2]).replace(*RIGHT)
    assert old in code
    example, _ = page
    inputs = {key: value[:2] if np.ndim(value) else value for key, value in example.inputs.items()}
    with loaded("sac_mistake", code.replace(old, new), folder) as module:
        report = parity.check(example.reference, module.FirstPort(), inputs, wrt=())
    return [m.leaf for m in report.failures if (m.stage, m.dtype) == ("values, eager", "float64")]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_first_at_the_output_that_it_is_made_in(mistake, page, tmp_path):
    old, new, outputs = MISTAKES[mistake]
    assert parted(page, tmp_path, old, new) == outputs


def test_the_port_that_the_mistakes_are_made_in_is_right(page, tmp_path):
    assert parted(page, tmp_path, SUM, SUM) == []
