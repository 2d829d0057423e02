"""How everything is, and what is wrong now."""

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from worker.api import fleet
from worker.api.access import SharedParts
from worker.console.pages import Visitor, render

router = APIRouter(include_in_schema=False)


@router.get("/health")
def health_page(caller: Visitor, parts: SharedParts) -> HTMLResponse:
    """Workers and cameras, and what is wrong now."""
    return render("health", caller, status=fleet.status(parts))
