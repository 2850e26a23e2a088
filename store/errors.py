"""Every error that raybolt raises itself.

    RayboltError
    ├── InvalidValue          a value given by the user is wrong (also a ValueError)
    └── StoreError            the store cannot do what was asked
        ├── UnknownRollout    no rollout has this id     (also a ValueError)
        ├── UnknownAttempt    no attempt has this id     (also a ValueError)
        ├── UnknownGroup      no group has this id       (also a ValueError)
        ├── UnknownResources  no resources have this id  (also a ValueError)
        ├── StoreFull         the disk, or Ray's object store, has no room
        └── InvalidTransition a status cannot follow the present one (also a ValueError)

Each takes one message, so that it survives pickling between processes unchanged. The store's are
ValueErrors, too, since that is what users of Agent Lightning's store catch.
"""

__all__ = [
    "InvalidTransition",
    "InvalidValue",
    "RayboltError",
    "StoreError",
    "StoreFull",
    "UnknownAttempt",
    "UnknownGroup",
    "UnknownResources",
    "UnknownRollout",
]


class RayboltError(Exception):
    """Root of every error that raybolt raises itself."""


class InvalidValue(RayboltError, ValueError):
    """A value given by the user is wrong; the message names the field, the value and the remedy."""


class StoreError(RayboltError):
    """The store cannot do what was asked."""


class StoreFull(StoreError):
    """There is no room: for spans on the disk, or for a group in Ray's object store and where it spills to.

    Nothing has changed, so the same can be asked again later (``add_when_room`` does it for spans).
    """


class UnknownRollout(StoreError, ValueError):
    """No rollout of this store has the given id."""


class UnknownAttempt(StoreError, ValueError):
    """The rollout has no attempt with the given id (or none at all, for ``"latest"``)."""


class UnknownGroup(StoreError, ValueError):
    """No rollout was ever enqueued in, and nobody declared, a group with the given id."""


class UnknownResources(StoreError, ValueError):
    """No resources of this store have the given id."""


class InvalidTransition(StoreError, ValueError):
    """The rollout or attempt has ended, so its status cannot change any more."""
