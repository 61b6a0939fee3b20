"""Our own two implementations, held together stage by stage: `parity check`.

`stages` says what a stage and an example of one are. `laws`, `learning`, `optimizers`, `updates`,
`playing`, `environment`, `weights` and `randomness` define the stages, each as a PyTorch callable,
a JAX callable and a definition by hand. `families` draws examples of them with every named hazard,
and `checking` runs them.

What is compared is looked up in the packages when a stage runs, so that `parity.mutants` can put a
wrong variant in its place from outside.
"""
