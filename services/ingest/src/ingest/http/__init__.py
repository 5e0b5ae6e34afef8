"""Ingest's HTTP side: `build_app(HttpParts(...))`."""

from ingest.http.app import build_app
from ingest.http.parts import Commands, HttpParts, Validation

__all__ = ["Commands", "HttpParts", "Validation", "build_app"]
