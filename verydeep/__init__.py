"""The whole VGG paper as a tool: its networks, recipe, protocols and experiment.

The public names are those of `__init__.pyi`; each is imported when it is first used, which keeps
`import verydeep` quick.
"""

import lazy_loader

from verydeep.version import __version__ as __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
