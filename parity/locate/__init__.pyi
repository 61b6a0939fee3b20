from .evidence import Cause as Cause
from .places import Location as Location
