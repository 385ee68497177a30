"""Folders of sentence-transformers: what theirs say of vectors, and what makes ours one of them."""

import json
from pathlib import Path
from typing import Any, get_args

from torch import Tensor

from clozeworks.core.bundle import Bundle, Card, read_json
from clozeworks.core.errors import UserError
from clozeworks.model.encoder import initialise
from clozeworks.model.families import Family, family_named, public_heads
from clozeworks.model.heads import Model, Pooler
from clozeworks.model.pooling import Pooling

TASK = "embed"
"""The task whose folders these are."""
MODULES = "modules.json"
WINDOW = "sentence_bert_config.json"
PROMPTS = "config_sentence_transformers.json"
_LEGACY = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
}
"""How a mode of pooling is named by versions before 6; those written here are read by all."""


def is_sentence_folder(bundle: Bundle) -> bool:
    """Whether a folder gives vectors of sentences, as sentence-transformers writes them."""
    return (bundle.path / MODULES).exists()


def said_of(task: str, bundle: Bundle) -> dict[str, Any]:
    """The settings of a task that the folder's files imply: of sentence vectors, where it has them.

    Raises UserError for a module or a pooling that is not known here.
    """
    if task != TASK or not is_sentence_folder(bundle):
        return {}
    where = bundle.path / MODULES
    places = {_kind(module, where): str(module.get("path") or "") for module in _modules(where)}
    if "Transformer" not in places or "Pooling" not in places:
        raise UserError(f"{where} names no Transformer and Pooling; copy it again")
    for place in places.values():
        if Path(place).name != place or place == "..":
            raise UserError(f"{where} names {place!r}, which does not lie beside it")
    _refuse_prompt(bundle.path / PROMPTS)
    pooling = _pooling(bundle.path / places["Pooling"] / "config.json")
    found = {"pooling": pooling, "normalize": "Normalize" in places}
    window = _window(bundle, places["Transformer"])
    return found if window is None else {**found, "max_length": window}


def card_of(bundle: Bundle) -> Card:
    """The folder's card; that of the task, where a folder from elsewhere gives vectors."""
    if bundle.card.task is not None or not is_sentence_folder(bundle):
        return bundle.card
    return bundle.card.model_copy(update={"task": TASK, "settings": said_of(TASK, bundle)})


def _modules(path: Path) -> list[dict[str, Any]]:
    """The modules a folder lists; raises UserError where they are no list of them."""
    try:
        values = json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path} is damaged or cut short ({error}); copy it again") from error
    if not isinstance(values, list) or not all(isinstance(v, dict) for v in values):
        raise UserError(f"{path} should hold a list of modules; copy it again")
    return values


def _kind(module: dict[str, Any], where: Path) -> str:
    kind = str(module.get("type")).rsplit(".", 1)[-1]
    known = ("Transformer", "Pooling", "Normalize")
    if kind not in known:
        raise UserError(
            f"{where} names a module {kind!r}, which is not known here (choices: "
            f"{', '.join(known)}); use sentence-transformers for this model"
        )
    return kind


def _pooling(path: Path) -> str:
    values = read_json(path)
    named = values.get("pooling_mode")
    modes = [named] if isinstance(named, str) else list(named or [])
    modes = modes or [
        _LEGACY.get(k, k) for k, v in values.items() if k[:13] == "pooling_mode_" and v
    ]
    if len(modes) != 1 or modes[0] not in get_args(Pooling):
        raise UserError(
            f"{path}: pooling {' + '.join(map(str, modes)) or 'none'} is not known here (choices: "
            f"{', '.join(get_args(Pooling))}); use sentence-transformers"
        )
    return str(modes[0])


def _window(bundle: Bundle, folder: str) -> int | None:
    """The longest sequence: what the folder says, at most what the encoder has positions for.

    Newer versions leave it to the tokenizer.
    """
    path, tokenizer = bundle.path / folder / WINDOW, bundle.path / "tokenizer_config.json"
    values = read_json(path) if path.exists() else {}
    pieces = read_json(tokenizer) if tokenizer.exists() else {}
    if values.get("do_lower_case") and pieces.get("do_lower_case") is False:
        raise UserError(
            f"{path}: do_lower_case, of a tokenizer that tells cases apart, is not known here; use "
            "sentence-transformers"
        )
    said = values.get("max_seq_length") or pieces.get("model_max_length")
    name = str(bundle.config.get("model_type") or "bert")
    known = (said, family_named(name).config(bundle.config).max_positions)
    return min((n for n in known if isinstance(n, int) and n > 0), default=None)


def _refuse_prompt(path: Path) -> None:
    """Raise UserError where texts would be read with words before them."""
    values = read_json(path) if path.exists() else {}
    name = values.get("default_prompt_name")
    prompts = values.get("prompts")
    if name is not None and isinstance(prompts, dict) and prompts.get(name):
        raise UserError(
            f"{path}: before each text stands a prompt there ({prompts[name]!r}), which is not "
            "added here; set default_prompt_name to null and write it into your texts"
        )


def write_sentence_files(folder: Path, card: Card, width: int) -> None:
    """Make a folder of sentence vectors open in sentence-transformers too; others stay as they are.

    `width` is how many numbers a vector has.
    """
    if card.task != TASK:
        return
    kinds = ["Transformer", "Pooling"] + ["Normalize"] * bool(card.settings.get("normalize"))
    paths = ["", *(f"{i}_{kind}" for i, kind in enumerate(kinds) if i)]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(zip(paths, kinds, strict=True))
    ]
    pooling = card.settings.get("pooling", "mean")
    modes = {name: mode == pooling for name, mode in _LEGACY.items()}
    window = card.max_length or card.settings.get("max_length")
    prompts: dict[str, Any] = {
        "prompts": {},
        "default_prompt_name": None,
        "similarity_fn_name": "cosine",
    }
    _write(folder / MODULES, modules)
    for path in paths[1:]:
        (folder / path).mkdir()
    _write(folder / paths[1] / "config.json", {"word_embedding_dimension": width, **modes})
    _write(folder / WINDOW, {"max_seq_length": window, "do_lower_case": False})
    _write(folder / PROMPTS, prompts)


def bare_pooler(model: Model, family: Family, card: Card) -> dict[str, Tensor]:
    """The pooler of a bare class, where no head of the model's has one.

    That of the folder the model is from; else, of a task's model, a fresh one, as `transformers`
    would make it.
    """
    public = public_heads(list(model.heads))
    if public or model.pooler is not None or "pooler.dense" not in family.modules:
        return {}
    if model.kept or card.task is None:
        return model.kept
    pooler = Pooler(model.config)
    initialise(pooler, model.config.init_std, seed=0)
    return {f"pooler.{name}": p.detach() for name, p in pooler.named_parameters()}


def _write(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", "utf-8")
