"""What an import could not use, by name: asked of the service, shown as far as a person reads."""

from rich.console import Console

from paperlog import show
from paperlog.progress import count_of
from paperlog.service import Json, Service

REJECTIONS_MAX = 50
WARNINGS_MAX = 20
FIRST_WARNINGS_MAX = 5
"""Below the summary of an import that has just ended, where something else is looked for."""
_PAGE_MAX = 200
"""So many the service lists at once."""


def show_rejections(service: Service, status: Json, to: Console) -> None:
    count = count_of(status, "documents", "rejected")
    if not count:
        return
    answer = service.get(f"/api/imports/{status['import_id']}/documents", after="r:0", limit=REJECTIONS_MAX)
    rejections = answer.get("rejections") or []
    if rejections:
        show.print_to(to, show.rejections_table(rejections, count))


def show_warnings(service: Service, status: Json, to: Console, count_max: int) -> None:
    count = status.get("warnings")
    if not isinstance(count, int) or not count:
        return
    path = f"/api/imports/{status['import_id']}/warnings"
    warnings = service.get(path, limit=count_max).get("warnings") or []
    if not warnings:
        return
    show.print_to(to, show.warnings_table(warnings))
    if count > len(warnings):
        # On a line of its own, for it is there to be copied.
        address = f"{service.url}{path}?limit={_PAGE_MAX}"
        to.print(f"and {count - len(warnings)} more: {address}", markup=False, soft_wrap=True)
