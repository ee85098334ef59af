"""The one setting that says where this repository is public, `repository: url` in `_config.yml`.

While it is empty no page leads there. Set, every page has buttons for its source, an edit and an issue, and chapters
have two more that open them in Binder and in Colab.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import ledger
from .problems import Problem

ADDRESS = re.compile(r"https://github\.com/[\w-]+/[\w.-]*[\w-]")
BUTTONS = ("use_repository_button", "use_edit_page_button", "use_issues_button")
LAUNCH = {
    "notebook_interface": "jupyterlab",
    "binderhub_url": "https://mybinder.org",
    "colab_url": "https://colab.research.google.com",
}
ONLINE = """\
### In the browser

The rocket at the top of a chapter opens it without any installation. *Binder* brings the environment of the book and
takes some minutes to start. *Colab* brings its own; there, run this in a new first cell:

```
%pip install "executable-theory[data,sweeps] @ git+{url}"
```

"""


def address(config: Mapping[str, Any]) -> str:
    """Where the repository is public, or nothing.

    Raises:
        Problem: it is no address of a repository on GitHub.
    """
    url = str((config.get("repository") or {}).get("url") or "")
    if url and not ADDRESS.fullmatch(url):
        raise Problem(f"_config.yml: repository: url: got {url!r}, want https://github.com/owner/name or nothing")
    return url


def with_buttons(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with all that leads to the repository, or with nothing that does.

    Raises:
        Problem: as `address`.
    """
    url, changed = address(config), copy.deepcopy(dict(config))
    changed.setdefault("html", {}).update(dict.fromkeys(BUTTONS, bool(url)))
    for name in ("repository", "launch_buttons"):
        changed.pop(name, None)
    if url:
        changed["repository"] = {"url": url, "branch": config["repository"].get("branch", "main")}
        changed["launch_buttons"] = dict(LAUNCH)
    return changed


def write_section(config: Mapping[str, Any], tree: Path) -> None:
    """Put the section on running a chapter in the browser, which only a public repository has, into a staged page.

    Raises:
        Problem: as `address`, or the page has no place for it.
    """
    url, page = address(config), tree / "book" / "how_to_use.md"
    if page.exists():
        section = ONLINE.format(url=url) if url else ""
        page.write_text(ledger.fill(page.read_text(encoding="utf-8"), "online", section, page), encoding="utf-8")
