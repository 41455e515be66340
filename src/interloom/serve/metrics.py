"""What the service says of itself to Prometheus, in a registry of its own."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST as CONTENT_TYPE

__all__ = ["CONTENT_TYPE", "Metrics"]

SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counters and histograms; ``text`` is what `/metrics` answers."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own = {"registry": self.registry, "namespace": "interloom"}
        self.requests = Counter(
            "requests", "Requests that were carried out, by how they ended.", ["outcome"], **own
        )
        self.seconds = Histogram("request_seconds", "From arrival to end.", buckets=SECONDS, **own)
        self.refused = Counter("refused", "Requests refused before any work.", ["code"], **own)
        self.answers = Counter("http_answers", "HTTP answers.", ["route", "status"], **own)
        self.images = Counter("images", "Pictures drawn, thrown-away ones included.", **own)
        self.failures = Counter("failures", "Calls of a model without an answer.", ["role"], **own)
        self.batch = Histogram(
            "batch_size", "Requests that shared a call.", ["role"], buckets=BATCHES, **own
        )
        self.call_seconds = Histogram(
            "call_seconds", "Of one shared call.", ["role"], buckets=SECONDS, **own
        )
        self.tokens = Counter("tokens", "Tokens of planner and critic.", ["role", "kind"], **own)
        self.waiting = Gauge("waiting", "Requests in the queue.", **own)
        self.in_flight = Gauge("in_flight", "Requests being carried out.", **own)
        self.model = Gauge("model", "1 for what is served now.", ["name", "version"], **own)
        self.swaps = Counter("swaps", "Changes of the served model.", **own)
        self.swap_failures = Counter("swap_failures", "New models that did not load.", **own)
        self.traces = Counter("traces", "Traces written to MLflow.", ["result"], **own)

    def serves(self, name: str, version: str) -> None:
        """Say which model answers now."""
        self.model.clear()
        self.model.labels(name, version).set(1)

    def text(self) -> bytes:
        """In Prometheus' exposition format."""
        return generate_latest(self.registry)
