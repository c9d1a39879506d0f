"""What of a shell's settings reaches the demo: none that name a place, a name or a key of some stack.

A shell that has read `.local/env` would else turn the demo on the stack that somebody works with.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Final

#: Sections whole: they also hold the group, the topics and the buckets that others use. `KAFKA_HOME`,
#: limits and the log's level are a matter of this machine or of taste, and stay.
_OF_A_STACK: Final = (
    *("FL_KAFKA", "FL_DATABASE", "FL_S3", "FL_ENCRYPTION", "FL_HTTP"),
    *("FL_REGISTRY_FILE", "FL_SECRETS_DIR", "AWS_"),
)


def of_a_stack(environ: Mapping[str, str]) -> list[str]:
    """The variables that say which stack is used and as whom, in any case of letters, sorted."""
    return sorted(key for key in environ if key.upper().startswith(_OF_A_STACK))


def forget(environ: MutableMapping[str, str]) -> str | None:
    """Take these variables out; a line that says so, or None when there were none."""
    names = of_a_stack(environ)
    for name in names:
        del environ[name]
    if not names:
        return None
    some = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"ignored: {some}; the demo uses a stack of its own (--use-environment takes them)"
