"""Environments: the protocol, CartPole on tensors, and the adapter to Gymnasium."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
