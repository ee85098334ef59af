"""A Sphinx extension: the role `claim` leads to a claim, wherever in the book it was made.

A claim stands in the output of a cell, so that Sphinx knows no label for it; its name is looked up in the executed
chapters. A name that no chapter claims is a warning, and so stops the build.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxRole

_LOG = logging.getLogger(__name__)


def claims_of(notebook: dict[str, Any]) -> list[str]:
    """The names of the claims that an executed notebook made."""
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
    return [output["metadata"]["claim"]["id"] for output in outputs if "claim" in output.get("metadata", {})]


def find_claims(app: Sphinx) -> None:
    """Note the page of every claim."""
    app.env.claim_pages = {  # type: ignore[attr-defined]
        name: f"chapters/{path.stem}"
        for path in sorted(Path(app.srcdir).glob("chapters/*.ipynb"))
        for name in claims_of(json.loads(path.read_text(encoding="utf-8")))
    }


class Claim(SphinxRole):
    """A claim's name, as a link to the place where it was checked."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """The link; docutils calls it."""
        page = self.env.claim_pages.get(self.text)  # type: ignore[attr-defined]
        name = nodes.literal(self.rawtext, self.text)
        if page is None:
            _LOG.warning("undefined label: '%s'", self.text, location=self.get_location())
            return [name], []
        target = self.env.app.builder.get_relative_uri(self.env.docname, page)
        return [nodes.reference("", "", name, internal=True, refuri=f"{target}#claim-{self.text}")], []


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the role."""
    app.connect("builder-inited", find_claims)
    app.add_role("claim", Claim())
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
