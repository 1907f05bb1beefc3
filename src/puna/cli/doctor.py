"""`doctor`: print the findings, one a line, each that is not well with its remedy below."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict

from puna.cli.progress import error_console, waiting
from puna.doctor import Finding, Verdict, examine
from puna.errors import PunaError

_MARKS = {Verdict.OK: "ok", Verdict.LACKING: "--", Verdict.MISSING: "!!"}


class NotFit(PunaError):
    """Something that running a model needs is missing."""

    def __init__(self, subjects: Sequence[str]) -> None:
        super().__init__(f"no model can be run as it is; see above: {', '.join(subjects)}")


async def doctor(*, as_json: bool) -> None:
    """NotFit when something is missing."""
    with waiting("looking at this machine", error_console()):
        findings = await examine(os.environ)
    missing = [finding.subject for finding in findings if finding.state is Verdict.MISSING]
    if as_json:
        print(json.dumps({"ok": not missing, "findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        print(report(findings))
    if missing:
        raise NotFit(missing)


def report(findings: Sequence[Finding]) -> str:
    width = max(len(finding.subject) for finding in findings)
    lines: list[str] = []
    for finding in findings:
        lines.append(f"{_MARKS[finding.state]}  {finding.subject:<{width}}  {finding.text}")
        if finding.remedy:
            lines.append(f"    {'':<{width}}  → {finding.remedy}")
    return "\n".join(lines)
