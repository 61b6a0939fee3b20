from .comparing import compare as compare
from .recorder import Recorder as Recorder
from .recorder import record as record
from .recording import Output as Output
from .recording import Recording as Recording
from .recording import Stage as Stage
