"""The classes of a framework that are patched: a base class and everything derived from it so far."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from raybolt.adapters.patching import Replace


def family(base: type) -> Iterator[type]:
    """The class and all that derive from it, each once."""
    seen: set[type] = {base}
    queue: list[type] = [base]
    for cls in queue:  # grows while it is walked
        yield cls
        derived: type
        for derived in cls.__subclasses__():
            if derived not in seen:
                seen.add(derived)
                queue.append(derived)


def own_methods(cls: type, replacements: Mapping[str, Replace]) -> dict[str, Replace]:
    """Those of the replacements whose method the class itself has written; the others it inherits."""
    own = vars(cls)
    return {
        name: make
        for name, make in replacements.items()
        if name in own and not getattr(own[name], "__isabstractmethod__", False)
    }
