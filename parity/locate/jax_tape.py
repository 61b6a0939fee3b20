"""Records a JAX callable: interprets its jaxpr, through every kind of call and loop.

What comes of it is flat: each step is one primitive on arrays, with loops unrolled as they ran, so
that it can be run again from any value on (`parity.locate.reruns`), and backwards step by step
(`parity.locate.jax_slopes`). With `opaque` a custom derivative is one step, and its rule holds.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from parity.jax_side import x64
from parity.locate.places import Mark, own_marks
from parity.locate.reruns import Reruns, Step
from parity.locate.scans import going_on, parts_of_scan, row, row_back, rows_stacked
from parity.locate.tape import Entry, Key, Recording
from parity.names import Arrays, flat, nested

CALLS = ("jit", "pjit", "closed_call", "core_call", "remat", "checkpoint", "remat2", "custom_lin")
CUSTOM = ("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr")


class Program(Reruns):
    """A run of a jaxpr, as it is recorded."""

    def __init__(self, *, opaque: bool = False) -> None:
        super().__init__()
        self.entries: list[Entry] = []
        self._opaque = opaque
        self._known: dict[int, int] = {}

    def input(self, path: str, array: Any) -> int:
        """An input, known from now on."""
        return self._new(array, Entry(("input", path, ()), "input", (), np.array(array)))

    def run(
        self,
        jaxpr: Any,
        constants: Sequence[Any],
        arguments: Sequence[int],
        path: tuple[Any, ...] = (),
        iteration: tuple[int, ...] = (),
        marks: tuple[Mark, ...] = (),
        scope: str = "",
    ) -> list[int]:
        """Runs a jaxpr on values that are known by their places; returns the outputs' places."""
        import jax.extend.core as core

        environment: dict[Any, int] = dict(zip(jaxpr.invars, arguments, strict=True))
        for variable, constant in zip(jaxpr.constvars, constants, strict=True):
            environment[variable] = self._constant(constant, path, iteration)

        def read(atom: Any) -> int:
            if isinstance(atom, core.Literal):
                return self._constant(atom.val, path, iteration)
            return environment[atom]

        for number, equation in enumerate(jaxpr.eqns):
            own = _marks(equation)
            # JAX keeps what it traced once: where a function was called is where it is called now.
            where = own if marks and own[-len(marks) :] == marks else (*own, *marks)
            name = str(equation.source_info.name_stack)
            inside = "/".join(filter(None, (scope, name)))
            operands = [read(atom) for atom in equation.invars]
            results = self._equation(equation, operands, (*path, number), iteration, where, inside)
            environment |= zip(equation.outvars, results, strict=True)
        return [read(atom) for atom in jaxpr.outvars]

    def _equation(
        self,
        equation: Any,
        operands: list[int],
        path: tuple[Any, ...],
        iteration: tuple[int, ...],
        marks: tuple[Mark, ...],
        scope: str,
    ) -> list[int]:
        name, params = equation.primitive.name, equation.params

        def inner(jaxpr: Any, arguments: Sequence[int], *at: Any, **options: Any) -> list[int]:
            options = {"iteration": iteration, "marks": marks, "scope": scope} | options
            consts = getattr(jaxpr, "consts", ())
            return self.run(
                getattr(jaxpr, "jaxpr", jaxpr), consts, arguments, (*path, *at), **options
            )

        if name in CALLS and (body := params.get("jaxpr", params.get("call_jaxpr"))) is not None:
            return inner(body, operands)
        if name in CUSTOM and not self._opaque:
            return inner(params.get("call_jaxpr", params.get("fun_jaxpr")), operands)
        if name == "cond":
            index = int(np.clip(int(self.values[operands[0]]), 0, len(params["branches"]) - 1))
            return inner(params["branches"][index], operands[1:], index)
        if name == "while":
            first, second = params["cond_nconsts"], params["body_nconsts"]
            of_cond, rest = operands[:first], operands[first:]
            of_body, carry = rest[:second], rest[second:]
            turn = 0
            while True:
                at = {"iteration": (*iteration, turn)}
                goes_on = inner(params["cond_jaxpr"], [*of_cond, *carry], "while", **at)[0]
                flags = self.values[goes_on]
                if not bool(flags.any()):
                    return carry
                moved = inner(params["body_jaxpr"], [*of_body, *carry], "do", **at)
                if flags.ndim:  # under `vmap` what has ended stays as it is
                    where = (*iteration, turn)
                    pairs = enumerate(zip(carry, moved, strict=True))
                    moved = [
                        self._step(
                            going_on, [goes_on, *pair], "select_n", (*path, i), where, marks, scope
                        )[0]
                        for i, pair in pairs
                    ]
                carry = moved
                turn += 1
        if name == "scan":
            return self._scan(params, operands, path, iteration, marks, scope, inner)
        return self._bind(equation, operands, path, iteration, marks, scope)

    def _scan(
        self,
        params: Mapping[str, Any],
        operands: list[int],
        path: tuple[Any, ...],
        iteration: tuple[int, ...],
        marks: tuple[Mark, ...],
        scope: str,
        inner: Callable[..., list[int]],
    ) -> list[int]:
        consts, carry, sequences = parts_of_scan(params, operands)
        num_carry = len(carry)
        turns = range(params["length"])
        rows: dict[int, list[int]] = {}
        for count, turn in enumerate(reversed(turns) if params["reverse"] else turns):
            at = (*iteration, count)
            where = at, marks, scope
            sliced = [
                self._step(
                    row(turn),
                    [each],
                    "scan input",
                    (*path, "in", i),
                    *where,
                    back=row_back(turn, self.values[each]),
                )[0]
                for i, each in enumerate(sequences)
            ]
            outputs = inner(params["jaxpr"], [*consts, *carry, *sliced], iteration=at)
            carry = outputs[:num_carry]
            rows[turn] = outputs[num_carry:]
        shapes = params["jaxpr"].out_avals[num_carry:]
        stacked = [
            self._step(
                rows_stacked(shape),
                [rows[turn][i] for turn in turns],
                "scan output",
                (*path, "out", i),
                iteration,
                marks,
                scope,
                back=list,
            )[0]
            for i, shape in enumerate(shapes)
        ]
        return [*carry, *stacked]

    def _bind(
        self,
        equation: Any,
        operands: list[int],
        path: tuple[Any, ...],
        iteration: tuple[int, ...],
        marks: tuple[Mark, ...],
        scope: str,
    ) -> list[int]:
        primitive = equation.primitive
        bound = primitive.get_bind_params(equation.params)
        # Until JAX 0.9 the functions in the parameters came first, apart.
        functions, params = bound if isinstance(bound, tuple) else ((), bound)

        def call(*arrays: Any) -> Any:
            return primitive.bind(*functions, *arrays, **params)

        return self._step(
            call, operands, primitive.name, path, iteration, marks, scope, equation=equation
        )

    def _step(
        self,
        call: Callable[..., Any],
        operands: Sequence[int],
        name: str,
        path: tuple[Any, ...],
        iteration: tuple[int, ...],
        marks: tuple[Mark, ...],
        scope: str,
        *,
        equation: Any = None,
        back: Callable[[np.ndarray], list[np.ndarray]] | None = None,
    ) -> list[int]:
        arrays = [self.values[each] for each in operands]
        returned = call(*arrays)
        outputs = list(returned) if isinstance(returned, list | tuple) else [returned]
        numbers = tuple(
            float(array)
            for place, array in zip(operands, arrays, strict=True)
            if self.entries[place].op == "constant" and _is_number(array)
        )
        parents = tuple(dict.fromkeys(operands))
        places = []
        for i, output in enumerate(outputs):
            key: Key = (path, i, iteration)
            entry = Entry(key, name, parents, _numpy(output), numbers, marks, _module(scope))
            places.append(self._new(output, entry))
        step = Step(call, tuple(operands), tuple(places), name, equation, back)
        self.steps.append(step)
        return places

    def _constant(self, value: Any, path: tuple[Any, ...], iteration: tuple[int, ...]) -> int:
        if id(value) in self._known:
            return self._known[id(value)]
        import jax.numpy as jnp

        array = jnp.asarray(value)
        key: Key = ("constant", path, len(self._known), ())
        place = self._new(array, Entry(key, "constant", (), _numpy(array)))
        self._known[id(value)] = place
        return place

    def _new(self, value: Any, entry: Entry) -> int:
        self.values.append(value)
        self.entries.append(entry)
        is_numeric = np.shape(value) == entry.array.shape
        self.arrays.append(entry.array if is_numeric else value)
        return len(self.values) - 1


class JaxRun(NamedTuple):
    """A run of a JAX callable: its recording, and the program that made it."""

    recording: Recording
    program: Program


def record_jax(
    function: Callable[..., Any], sets: Sequence[Arrays], *, opaque: bool = False
) -> list[JaxRun]:
    """Runs a JAX callable of arrays by path at several input sets.

    It is traced once, and anew where plain numbers differ, which it may not take as arrays.
    """
    import jax
    import jax.numpy as jnp

    runs: list[JaxRun] = []
    traced: tuple[Any, ...] = ()
    with x64(True):
        for arrays in sets:
            names = [name for name, value in arrays.items() if isinstance(value, np.ndarray)]
            plain = {name: value for name, value in arrays.items() if name not in names}
            given = [jnp.array(arrays[name]) for name in names]
            if not traced or traced[0] != plain:
                outputs: list[str] = []

                def of_arrays(*values: Any, names=names, plain=plain, outputs=outputs) -> list[Any]:
                    named = dict(zip(names, values, strict=True))
                    returned = flat(function(**nested({**named, **plain})))
                    outputs[:] = returned
                    return [*returned.values()]

                traced = plain, jax.make_jaxpr(of_arrays)(*given), outputs
            _, closed, outputs = traced
            program = Program(opaque=opaque)
            pairs = zip(names, given, strict=True)
            inputs = {name: program.input(name, array) for name, array in pairs}
            found = program.run(closed.jaxpr, closed.consts, [*inputs.values()])
            recording = Recording(program.entries, inputs, dict(zip(outputs, found, strict=True)))
            runs.append(JaxRun(recording, program))
    return runs


def _marks(equation: Any) -> tuple[Mark, ...]:
    traceback = equation.source_info.traceback
    if traceback is None:
        return ()
    codes, offsets = traceback.raw_frames()
    return own_marks(zip(codes, offsets, strict=True))


def _module(scope: str) -> str:
    """The path of the Flax module: the scopes that it opens, without those of JAX."""
    return "/".join(part for part in scope.split("/") if part.isidentifier())


def _is_number(array: Any) -> bool:
    return getattr(array, "ndim", 1) == 0 and array.dtype.kind in "fiu"


def _numpy(value: Any) -> np.ndarray:
    try:
        return np.array(value)
    except TypeError:  # a key of random numbers, a token
        return np.zeros(0)
