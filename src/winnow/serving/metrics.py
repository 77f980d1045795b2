"""What Prometheus reads at /metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Counters of one server. Labels are routes, statuses and models, never what a client chose freely."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("winnow_requests", "Requests answered.", ("route", "status"), registry=self.registry)
        self.seconds = Histogram("winnow_request_seconds", "From the first byte to the last.", ("route",),
                                 buckets=SECONDS, registry=self.registry)
        self.running = Gauge("winnow_requests_running", "Requests to detect in the house.", registry=self.registry)
        self.waiting = Gauge("winnow_waiting_images", "Images that wait for the model.", registry=self.registry)
        self.batches = Histogram("winnow_batch_images", "Images that passed the network together.", ("model",),
                                 buckets=(1, 2, 4, 8, 16, 32), registry=self.registry)
        self.model_seconds = Histogram("winnow_batch_seconds", "One batch in the network.", ("model",),
                                       buckets=SECONDS, registry=self.registry)
        self.deaths = Counter("winnow_worker_deaths", "Times that the models' process ended and was started again.",
                              registry=self.registry)

    def batch(self, model: str, images: int, seconds: float) -> None:
        """A batch went through."""
        self.batches.labels(model).observe(images)
        self.model_seconds.labels(model).observe(seconds)

    def request(self, route: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self.requests.labels(route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """All of it, in the format of Prometheus."""
        return generate_latest(self.registry)
