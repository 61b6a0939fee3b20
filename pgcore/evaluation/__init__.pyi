from .playing import Act as Act
from .playing import Evaluation as Evaluation
from .playing import evaluate as evaluate
