"""The public names, for type checkers; `__init__.py` finds the same ones in the same places."""

from .attacks import *
from .callbacks import *
from .cli import *
from .evaluation import *
from .losses import *
from .methods import *
from .module import *

__version__: str
