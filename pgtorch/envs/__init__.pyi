from .base import Env as Env
from .cartpole import CartPole as CartPole
from .cartpole import CartPoleState as CartPoleState
from .gymnasium import GymnasiumEnv as GymnasiumEnv
from .registry import make_env as make_env
