"""Models by name: the one that comes with the package, and `hub:OWNER/NAME[@REVISION]`.

The latter are had through `huggingface_hub`, whose own settings hold: HF_ENDPOINT for a mirror,
HF_HUB_OFFLINE for no network, HF_HOME for the place of its cache.
"""

import re
from functools import lru_cache
from pathlib import Path

from clozeworks.core.errors import UserError

SHIPPED = Path("clozeworks-mini")
"""The name of the encoder that comes with the package: BERT-mini for English and Chinese."""
MODELS = Path(__file__).parents[1] / "models"
_NAME = re.compile(r"hub:(?P<name>[\w.-]+(/[\w.-]+)?)(@(?P<revision>[\w./-]+))?")
WANTED = ("*.json", "*.safetensors", "pytorch_model*.bin", "vocab.txt")
"""Files of a model that are ever read."""


def local(path: Path) -> Path:
    """The folder of a model: the path itself, or what its name stands for.

    A model that is called as the shipped one is, and is where we are, comes before it.

    Raises UserError if the name is not one, the library is missing, or the model cannot be had.
    """
    text = str(path)
    if path == SHIPPED and not (path / "config.json").exists():
        return MODELS / SHIPPED
    if not text.startswith("hub:"):
        return path
    found = _NAME.fullmatch(text)
    if found is None:
        raise UserError(f"{text!r} is not hub:OWNER/NAME or hub:OWNER/NAME@REVISION")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    except ImportError as error:
        raise UserError(f"{text} needs huggingface_hub: pip install 'clozeworks[hub]'") from error
    try:
        return Path(
            snapshot_download(
                found["name"], revision=found["revision"], allow_patterns=list(WANTED)
            )
        )
    except (OSError, ValueError, HfHubHTTPError, HFValidationError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(
            f"{text} cannot be had ({reason}); check name and network, set HF_ENDPOINT to a "
            "mirror, or copy the model's folder here and name that"
        ) from error


@lru_cache
def origin(path: Path) -> str:
    """What a model came from: its path, or its name on the Hub with the commit that was taken."""
    text = str(path)
    return f"{text.partition('@')[0]}@{local(path).name}" if text.startswith("hub:") else text
