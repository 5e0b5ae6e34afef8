"""What the embedder measures; one catalogue, no ids as labels."""

from prometheus_client import Counter, Gauge, Histogram

CHUNKS = Counter("paperlog_embedding_chunks", "Chunks by what became of them", ["outcome"])
REQUESTS = Counter("paperlog_embedding_requests", "Requests to the provider by their end", ["end"])
REQUEST_SECONDS = Histogram("paperlog_embedding_request_seconds", "From a request to its answer")
IN_FLIGHT = Gauge("paperlog_embedding_requests_in_flight", "Requests that wait for their answer")
DEAD_LETTERS = Counter("paperlog_embedding_dead_letters", "Records that could not be processed")
TOKENS = Counter("paperlog_embedding_tokens", "As the provider billed them")
