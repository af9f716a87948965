"""HTTP doorway of drift: last windows and reports, to look at; nothing here changes anything."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter, Response

from millstream.runtime.http import answer, refusal
from millstream_drift.handlers import Judging
from millstream_drift.ports import Reports

PAGE_HEADERS = {
    # The page is drawn from users' data, so it may run its own inline script in an origin of its own and nothing else:
    # no request of any kind leaves it. It loads nothing: fonts and images are inside.
    "Content-Security-Policy": "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data: blob:; font-src data:; connect-src 'none'; form-action 'none'; "
    "base-uri 'none'; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "private, max-age=86400",
}


def routes(judgings: Mapping[str, Judging], reports: Reports) -> APIRouter:
    """Everything drift answers, beside the probes. `judgings`: by loop."""
    router = APIRouter(prefix="/v1")

    @router.get(
        "/loops/{loop}/windows",
        tags=["drift"],
        summary="The last verdicts of a loop, and what late labels made of them",
    )
    async def windows(loop: str) -> Response:
        judging = judgings.get(loop)
        if judging is None:
            return refusal(404, "unknown_loop", f"no loop {loop[:100]!r}; known: {', '.join(sorted(judgings))}")
        if not judging.is_judging():
            return refusal(503, "elsewhere", f"another replica judges {loop}, or none yet: ask again, or that one")
        lately = judging.lately(loop)
        return answer(200, {"loop": loop, "windows": lately.verdicts[::-1], "corrected": lately.corrected})

    @router.get("/reports", tags=["drift"], summary="Reports that can be read, newest window first")
    def listing() -> Response:
        return answer(200, {"reports": reports.entries()})

    @router.get("/reports/{id}", tags=["drift"], summary="An Evidently report as a page; 202 while it is drawn")
    def report(id: str) -> Response:
        state = reports.state(id)
        if state == "in_progress":
            return answer(202, {"status": state, "message": "the report is being drawn; ask again in some seconds"})
        page = reports.html(id)
        if page is None:
            return refusal(404, "unknown_report", "no such report; it may be older than the newest that are kept")
        return Response(page, media_type="text/html; charset=utf-8", headers=PAGE_HEADERS)

    return router
