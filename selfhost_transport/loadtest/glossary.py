"""What the words of a report mean, for people who did not run the test."""

from __future__ import annotations

from typing import Final

from selfhost_transport.loadtest.recorder import Metric

GLOSSARY: Final[dict[Metric, str]] = {
    Metric.FIRST_TOKEN: "From the moment a message should have been sent to the first words of its answer on the screen.",
    Metric.TOTAL: "From the moment a message should have been sent to the end of its answer, of answers that were completed.",
    Metric.TIME_PER_TOKEN: "The time from the first to the last token of an answer, divided by the tokens in between.",
    Metric.TOKEN: "From the moment the model's schedule had a token due to its arrival: worker, gathering and delivery.",
    Metric.DELIVERY: "From the moment a chunk was written to Redis to its arrival: what this service adds to the model.",
    Metric.GAP: "Between two arrivals of the same answer: what an eye sees as smooth or jerky.",
    Metric.SEND_ACK: "From the moment a message should have been sent to the acknowledgement that it will be worked on.",
    Metric.REFUSAL: "From the moment a message should have been sent to the refusal that asks to send it again later.",
    Metric.QUEUE_WAIT: "From the acceptance of a message until a worker began with it.",
    Metric.CANCEL_ACK: "From a stop to its acknowledgement, after which nothing more of the answer can come.",
    Metric.CANCEL_CONTENT: "From a stop to the last words that still came; 0 when none did.",
    Metric.CANCEL_TERMINAL: "From a stop to the mark that the answer is over.",
    Metric.CONNECT: "From dialling to an established connection.",
    Metric.ATTACH: "From asking for a session to receiving it.",
    Metric.RECONNECT: "From the loss of a connection to receiving the session again.",
    Metric.RELOAD: "From the loss of a connection to the conversation read from the history, as a reloaded page does.",
    Metric.LAG: "How late the load generator itself was: it is part of every figure.",
}
WORDS: Final = (
    ("p50, p99", "Half of the values, and all but the slowest hundredth, are no higher."),
    (
        "lost, duplicate, wrong_text",
        "Text that the history has and a viewer did not get, got twice, or got otherwise.",
    ),
    ("after_cancel", "Words of an answer at a position after the acknowledgement of its stop."),
    ("missing_terminal, second_terminal", "An answer that never ended, or ended twice."),
    ("knee", "The most turns at once that stay inside the latency budget."),
    ("turn", "One message and the answer to it."),
)
