"""How a tool ends: quietly, or with one clear line on stderr and a code that is not zero."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import NoReturn


class Problem(Exception):  # noqa: N818  (its text is for a user, not for a traceback)
    """Something a user can understand and mend; its text is the whole message."""

    code = 1


class Misuse(Problem):
    """A wrong option, found before anything was started."""

    code = 2


def finish(main: Callable[[], None]) -> NoReturn:
    """Run a tool as a command: a problem becomes one line and an exit code, an interruption is no traceback.

    SIGTERM is treated as Ctrl-C, so that what was started is stopped and half-written files are removed either way;
    and Ctrl-C works also where a shell started the tool in the background and has it ignored.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        main()
    except Problem as problem:
        print(problem, file=sys.stderr)
        raise SystemExit(problem.code) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    raise SystemExit(0)
