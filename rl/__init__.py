"""What is learned: recipes, the trainer, RLlib's classes, engines, credit and losses.

Names are imported when first used: recipes load neither Ray nor torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raybolt.rl.algorithm import LightningRLAlgorithm
    from raybolt.rl.config import LightningRLConfig
    from raybolt.rl.errors import ContextOverflow, EngineError, TrainingError, UnsupportedModel
    from raybolt.rl.policies import PolicySpec
    from raybolt.rl.recipes import SFT, LightningRL
    from raybolt.rl.results import EvalResult, FitResult, Progress
    from raybolt.rl.trainer import Trainer

__all__ = [
    "SFT",
    "ContextOverflow",
    "EngineError",
    "EvalResult",
    "FitResult",
    "LightningRL",
    "LightningRLAlgorithm",
    "LightningRLConfig",
    "PolicySpec",
    "Progress",
    "Trainer",
    "TrainingError",
    "UnsupportedModel",
]

_HOMES = {
    "algorithm": ("LightningRLAlgorithm",),
    "config": ("LightningRLConfig",),
    "errors": ("ContextOverflow", "EngineError", "TrainingError", "UnsupportedModel"),
    "policies": ("PolicySpec",),
    "recipes": ("SFT", "LightningRL"),
    "results": ("EvalResult", "FitResult", "Progress"),
    "trainer": ("Trainer",),
}
_MODULE_OF = {name: f"{__name__}.{module}" for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)
