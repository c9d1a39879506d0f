"""The states of a job as a diagram, printed from the graph that `evolve` enforces."""

from __future__ import annotations

import re

from service.domain.enums import TERMINAL
from service.domain.evolve import EVENTS


def mermaid() -> str:
    """A Mermaid state diagram: each arrow carries the events that make the step."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for row in EVENTS:
        target = row.leads_to
        if target is None:
            continue
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", row.event.__name__).lower()
        for source in row.comes_in:
            start = "[*]" if source is None else str(source)
            if start != target:
                arrows.setdefault((start, str(target)), []).append(name)
    lines = [
        f"    {start} --> {end}: {', '.join(sorted(names))}"
        for (start, end), names in sorted(arrows.items())
    ]
    lines += [f"    {state} --> [*]" for state in sorted(TERMINAL)]
    return "\n".join(["stateDiagram-v2", *lines])
