"""Writing a report: a list of sections becomes one self-contained HTML page, or JSON."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import jinja2
from markupsafe import Markup, escape
from pydantic import BaseModel

from clozeworks.core.files import write_file
from clozeworks.core.records import as_json
from clozeworks.core.run import versions
from clozeworks.evaluation.catalogue import catalogue
from clozeworks.evaluation.compare import Unread
from clozeworks.evaluation.matrix import lay_out
from clozeworks.evaluation.sections import Section


def write_report(
    path: str | Path, title: str, sections: Sequence[Section], language: str = "en"
) -> None:
    """Write the page whole or not at all; it asks the network for nothing and runs no script.

    `language` is "en" or "zh" and rules the page's own words; sections bring theirs. Raises
    UserError for another language, a full disk or a folder that refuses.
    """
    page = render(title, sections, language)
    with write_file(path) as stream:
        stream.write(page)


def saying_unread(
    sections: Sequence[Section], unread: Unread, rows: int, language: str
) -> list[Section]:
    """Sections the first of which also says how much of so many rows was not read."""
    first, *others = sections
    said = catalogue(language)["unread_note"]
    said = said.format(rows=unread.rows, all=rows, tokens=unread.tokens)
    return [first.model_copy(update={"notes": [*first.notes, said]}), *others]


def write_json(path: str | Path, content: BaseModel) -> None:
    """Write a record as indented JSON, absent fields left out; raises UserError as above."""
    with write_file(path) as stream:
        json.dump(as_json(content), stream, ensure_ascii=False, indent=1)


def render(title: str, sections: Sequence[Section], language: str = "en") -> str:
    """The page as text; every string but the drawings of figures is escaped."""
    page = _environment().get_template("report.html.jinja")
    return page.render(
        title=title,
        sections=sections,
        language={"en": "en", "zh": "zh-CN"}.get(language, language),
        words=catalogue(language),
        version=versions().get("clozeworks", ""),  # none where it runs uninstalled
    )


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("clozeworks.evaluation"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["lay_out"] = lay_out
    environment.filters["breakable"] = _breakable
    return environment


def _breakable(text: str) -> Markup:
    """The text escaped, with leave to break a name at its underscores."""
    return escape(text).replace("_", Markup("_<wbr>"))
