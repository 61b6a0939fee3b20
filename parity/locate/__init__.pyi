from .divergence import Divergence as Divergence
from .divergence import first_divergence as first_divergence
from .evidence import Cause as Cause
from .places import Location as Location
