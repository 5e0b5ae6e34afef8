"""How the command says that something did not work: what, why, and what to do. Nothing else ends a command early."""

from collections.abc import Mapping
from typing import Any

FAILED = 1
WRONG_USAGE = 2
WITH_REJECTIONS = 3
INTERRUPTED = 130
"""What a shell answers for a program that Ctrl-C ended."""

_NAMES_SHOWN_MAX = 20
_HERE = {
    "import_unknown": "List them with: paperlog imports",
    "project_unknown": "List them with: paperlog imports",
}
"""What to do where the service's own advice is written for programs: by code of the problem."""


class Failure(Exception):  # noqa: N818 - names what it is to the reader
    """Shown to a person as it is; `code` becomes the exit code."""

    def __init__(self, what: str, *, why: str = "", todo: str = "", code: int = FAILED) -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.todo = todo
        self.code = code


class Refused(Failure):
    """The service answered and said no; `problem` is its RFC 9457 document, or empty where it sent none."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        title = str(problem.get("title") or f"the service answered HTTP {status}")
        super().__init__(
            title,
            why="\n".join(_reasons(title, problem)),
            todo=_HERE.get(str(problem.get("code") or "")) or str(problem.get("action") or ""),
        )
        self.status = status
        self.problem_code = str(problem.get("code") or "")
        self.is_retryable = bool(problem.get("retryable"))


def _reasons(title: str, problem: Mapping[str, Any]) -> list[str]:
    detail = str(problem.get("detail") or "")
    problems = _list(problem, "problems")
    messages = [str(each.get("message") or "") for each in problems]
    is_said_below = any(message in detail for message in messages if message)
    lines = [] if detail == title or is_said_below else [detail]
    for each in problems:
        subject, message = str(each.get("subject") or ""), str(each.get("message") or "")
        lines.append(f"{subject}: {message}" if subject else message)
    names = [str(name) for name in problem.get("files") or () if isinstance(name, str)]
    lines += names[:_NAMES_SHOWN_MAX]
    if len(names) > _NAMES_SHOWN_MAX:
        lines.append(f"and {len(names) - _NAMES_SHOWN_MAX} more")
    return [line for line in lines if line]


def _list(problem: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    value = problem.get(key)
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []
