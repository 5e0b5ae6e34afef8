"""The catalogue of what ingest's HTTP side measures. Labels are few: never an id, a name or a path with one."""

from prometheus_client import Counter, Gauge, Histogram

REQUEST_SECONDS = Histogram(
    "paperlog_http_request_seconds",
    "From the first byte of a request to the last of its answer, by route; streams of progress are left out",
    ["method", "route", "status"],
    buckets=(0.005, 0.02, 0.1, 0.5, 2, 10, 60),
)
UPLOADED_BYTES = Counter(
    "paperlog_uploaded_bytes", "Received into the blob store, whatever became of the request"
)
IMPORTS_ACCEPTED = Counter("paperlog_imports_accepted", "Requests answered with 202 that were new")
REQUESTS_REFUSED = Counter("paperlog_requests_refused", "Problem documents sent, by code", ["code"])
WATCHERS = Gauge("paperlog_watchers_open", "Open streams of progress")
