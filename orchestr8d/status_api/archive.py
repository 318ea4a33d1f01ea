"""The archive: finished workflows with their reports, found by what is in them."""

from __future__ import annotations

from aiohttp import web

from orchestr8d.status_api import cursors, respond
from orchestr8d.status_api import workflow_views as views
from orchestr8d.status_api.cursors import Page
from orchestr8d.status_api.route import Call, Route
from orchestr8d.status_api.services import Services


class Wanted(Page, frozen=True, forbid_unknown_fields=True):
    """Which workflows."""

    # Words in name or report.
    q: str | None = None


async def index(services: Services, call: Call) -> web.Response:
    wanted: Wanted = call.query
    await services.archive_reports()
    found = await services.store.archive(wanted.q, wanted.limit + 1, cursors.read_int("archive", wanted.cursor))
    page = found[: wanted.limit]
    more = cursors.make("archive", str(page[-1].seq)) if len(found) > len(page) else None
    return respond.json(views.ArchiveList([views.archive_row(one) for one in page], more))


async def show(services: Services, call: Call) -> web.Response:
    await services.archive_reports()
    return respond.json(views.archived(await services.store.archived(call.path("id"))))


ROUTES = (
    Route(
        "GET", "/api/v1/archive", index, "Finished workflows, newest first; `q` looks into their reports", "read",
        {200: views.ArchiveList}, query=Wanted,
    ),
    Route(
        "GET", "/api/v1/archive/{id}", show, "A finished workflow, with its report", "read", {200: views.ArchiveEntry}
    ),
)  # fmt: skip
