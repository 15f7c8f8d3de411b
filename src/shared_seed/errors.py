"""Everything this package raises on purpose.

::

    SharedSeedError
    ├── RecipeError            a recipe or a setting is wrong (also a ValueError)
    ├── DataError              data cannot be read or lacks what the recipe names (also a ValueError)
    ├── ModelError             the model cannot be trained by shared-seed SPSA, or cannot be loaded
    ├── ManifestMismatchError       two peers would not be training the same thing
    ├── GridError              an update could lose exactness
    │   └── HeadroomError      weights came too near the edge of their grid
    ├── LogError               a gradient log cannot be used
    │   └── LogDamagedError         bytes in the middle of a log are not what was written
    ├── MessageError           bytes from another peer are not a valid message
    │   └── EquivocationError  one sequence number carries two different messages
    ├── KeyFileError           the file of a peer's key cannot be used
    ├── CardError              a model card cannot be written, or is not what the Hub takes
    ├── HubError               the Hub, or the folder in its place, does not take what is sent
    └── SwarmError             the network part cannot do what was asked
        ├── AddressInUseError       a listening port is taken
        ├── UnreachableError        nobody answers at an address
        └── RefusedError            the other side said no, and why

Every message says what was wrong, what was expected and what to do.
"""

from __future__ import annotations


class SharedSeedError(Exception):
    """Base of all errors of this package."""


class RecipeError(SharedSeedError, ValueError):
    """A recipe or a setting is wrong."""


class DataError(SharedSeedError, ValueError):
    """Data cannot be read, or lacks what the recipe names."""


class ModelError(SharedSeedError):
    """The model cannot be trained by shared-seed SPSA, or cannot be loaded."""


class ManifestMismatchError(SharedSeedError):
    """Two peers would not be training the same thing; names the field that differs."""


class GridError(SharedSeedError):
    """An update could lose exactness."""


class HeadroomError(GridError):
    """Weights came too near the edge of their grid; nothing was changed."""


class LogError(SharedSeedError):
    """A gradient log cannot be used."""


class LogDamagedError(LogError):
    """Bytes in the middle of a log are not what was written; names the offset."""


class MessageError(SharedSeedError):
    """Bytes from another peer are not a valid message."""


class EquivocationError(MessageError):
    """One sequence number of a stream carries two different messages."""


class KeyFileError(SharedSeedError):
    """The file of a peer's key cannot be used."""


class CardError(SharedSeedError):
    """A model card cannot be written, or is not what the Hub takes."""


class HubError(SharedSeedError):
    """The Hub, or the folder in its place, does not take what is sent."""


class SwarmError(SharedSeedError):
    """The network part cannot do what was asked."""


class AddressInUseError(SwarmError):
    """A listening port is taken."""


class UnreachableError(SwarmError):
    """Nobody answers at an address."""


class RefusedError(SwarmError):
    """The other side said no; the message is its reason."""
