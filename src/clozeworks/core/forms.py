"""What a value is to look like, in words a person can follow, from its type."""

import json
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeGuard, Union, get_args, get_origin

from pydantic import BaseModel

SCALARS: dict[Any, tuple[str, Any]] = {
    str: ("a text", "…"),
    int: ("a whole number", 0),
    float: ("a number", 0.5),
    bool: ("true or false", True),
}
"""What a value of each type is called, and one of them."""


def form_of(annotation: Any) -> str:
    """What a value of this type looks like: `a text, or a list such as ["…"]`."""
    return ", or ".join(dict.fromkeys(_named(one) for one in forms(annotation)))


def forms(annotation: Any) -> list[Any]:
    """The types a value may have, each by itself; None, which stands for "not given", left out."""
    if get_origin(annotation) is Annotated:
        return forms(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [inner for one in get_args(annotation) for inner in forms(one)]
    return [] if annotation in (None, NoneType) else [annotation]


def is_model(form: Any) -> TypeGuard[type[BaseModel]]:
    """Whether it is a class of named fields."""
    return isinstance(form, type) and issubclass(form, BaseModel)


def _named(form: Any) -> str:
    if form in SCALARS:
        return SCALARS[form][0]
    if get_origin(form) is Literal:
        return " or ".join(map(repr, get_args(form)))
    kind = "a list such as" if get_origin(form) is list else "an object such as"
    sketch = _sketch(form)
    if sketch is None:
        return str(getattr(form, "__name__", form)).lower()
    return f"{kind} {json.dumps(sketch, ensure_ascii=False)}"


def _sketch(annotation: Any) -> Any:
    """A value of this type with what it cannot do without; None where none can be made up."""
    form = next(iter(forms(annotation)), None)
    if form in SCALARS:
        return SCALARS[form][1]
    if is_model(form):
        needed = {n: f.annotation for n, f in form.model_fields.items() if f.is_required()}
        return {name: _sketch(inner) for name, inner in needed.items()}
    if get_origin(form) is list:
        return [_sketch(get_args(form)[0])]
    if get_origin(form) is dict:
        return {"…": _sketch(get_args(form)[1])}
    return None
