"""What a run did and where its time went."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

STAGES = ("images", "model", "results")


@dataclass
class Tally:
    """Counts, skipped items with their reasons, and where the time went (seconds).

    The time of the threads that run the model is split in three: waiting for images (decode and transform are the
    bottleneck), running the model, and waiting for the caller to take results (decode of outputs, metric or writer).

    Attributes:
        images: samples that came out.
        skipped: (file, reason) of samples that could not be read.
        began: when the first batch was asked for, every rank being there.
        wall: from then to the last result taken.
        waiting_for_images: of the model's threads, summed.
        running: of the model's threads, summed.
        lanes: model threads (over all ranks); the two sums above are out of ``wall * lanes``.
        latencies: seconds of every run of the model.
        resized: (file, both sizes) of images that have another size than their annotation states.
        transform_on: where images were resized and normalized, "cpu" or "gpu".
    """

    images: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    began: float = 0.0
    wall: float = 0.0
    waiting_for_images: float = 0.0
    running: float = 0.0
    lanes: int = 1
    latencies: list[float] = field(default_factory=list)
    transform_on: str = "cpu"
    resized: list[tuple[str, str]] = field(default_factory=list)

    @property
    def images_per_second(self) -> float:
        """Images per second of wall time, first batch to last."""
        return self.images / self.wall if self.wall > 0 else float("nan")

    def add(self, other: Tally) -> None:
        """Take in what another rank did at the same time; the count of images is not its to give."""
        self.wall = max(self.wall, other.wall)
        self.skipped += other.skipped
        self.resized += other.resized
        self.waiting_for_images += other.waiting_for_images
        self.running += other.running
        self.lanes += other.lanes
        self.latencies += other.latencies

    def shares(self) -> dict[str, float]:
        """Share of the time in which each of :data:`STAGES` was what the others waited for; they sum to 1."""
        whole = self.wall * self.lanes
        if whole <= 0:
            return dict.fromkeys(STAGES, float("nan"))
        images, model = min(self.waiting_for_images / whole, 1.0), min(self.running / whole, 1.0)
        return {"images": images, "model": model, "results": max(0.0, 1.0 - images - model)}

    def report(self) -> dict[str, Any]:
        """The figures for results.json: counts, images/s, shares of wall time, model latency in ms per batch."""
        p50, p90, p99 = np.percentile(np.array(self.latencies or [np.nan]) * 1e3, [50, 90, 99])
        shares = self.shares()
        return {
            "images_evaluated": self.images,
            "images_skipped": len(self.skipped),
            "images_per_second": self.images_per_second,
            "time_share": shares,
            "transform_on": self.transform_on,
            "bottleneck": max(shares, key=shares.__getitem__),
            "batch_latency_ms": {"p50": p50, "p90": p90, "p99": p99},
        }

    def summary(self) -> str:
        """The same figures in one line for people."""
        latency = self.report()["batch_latency_ms"]
        shares = ", ".join(f"{stage} {share:.0%}" for stage, share in self.shares().items())
        figures = " / ".join(f"{latency[key]:.2f}" for key in ("p50", "p90", "p99"))
        return f"time: {shares}; model p50/p90/p99 {figures} ms per batch"
