"""The region in which two computations part: what has no partner and leads to a wrong output."""

from collections.abc import Collection, Sequence
from functools import cached_property

from parity.locate.correspondence import Correspondence, number_of


class Region(Correspondence):
    """Two tapes, with what is wrong on JAX's and what JAX lacks of PyTorch's."""

    @cached_property
    def region(self) -> list[int]:
        """JAX's values without a partner that lead to a wrong output, in order."""
        return sorted(self.leading_to(self.targets))

    def leading_to(self, targets: Collection[int]) -> set[int]:
        """JAX's values without a partner that lead to some values, and these."""
        found, open_ = set(targets), list(targets)
        while open_:
            for parent in self.jax.values[open_.pop()].parents:
                if parent not in found and not self.has_partner(parent):
                    found.add(parent)
                    open_.append(parent)
        return found

    @cached_property
    def edge(self) -> list[int]:
        """The region's first values."""
        inside = set(self.region)
        return [i for i in self.region if not inside & {*self.jax.values[i].parents}]

    @cached_property
    def missing(self) -> list[tuple[int, ...]]:
        """PyTorch's values that JAX lacks and that lead to the outputs: alone, and by loops."""
        leading = self.torch.ancestors([self.torch.outputs[path] for path in self.wrong])
        ends = {self.torch.outputs[path] for path in self.wrong}
        consumers = self.torch.consumers()
        # A buffer that is still being written is no result.
        unfinished = {
            i for i in leading if any(self.torch.values[c].op == "read" for c in consumers[i])
        }
        leading -= {i for i in unfinished if self.torch.values[i].op == "read"}
        alone = [i for i in sorted(leading) if i in ends or not self.is_known(i)]
        loops = [
            tuple(order)
            for members in self.torch.families()
            if leading & {*members} and not self._are_known(members)
            for order in (members, members[::-1])
        ]
        return [*((i,) for i in alone), *loops]

    def _are_known(self, members: Sequence[int]) -> bool:
        """Whether JAX has each of a loop's values of PyTorch's.

        Where each is one number everywhere, a discounted return say, the loop still says something.
        """
        alone = [self.torch.values[i] for i in members if i not in self.partners.of_torch]
        return len({*map(number_of, alone)}) < 2 and all(map(self.is_known, members))

    def tells(self, index: int) -> bool:
        """Whether a value of JAX's is right, or wrong for an output.

        The rounds that a loop goes on for once all has ended are neither.
        """
        return self.has_partner(index) or index in self._inside

    @cached_property
    def _inside(self) -> set[int]:
        return {*self.region}
