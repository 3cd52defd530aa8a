"""What is told of a conversion while it runs: the pass over the source's headers, then its images."""

from alexnet.tools.convert.build import Progress
from alexnet.tools.convert.sources.walk import Walked
from alexnet.tools.progress import Amount


def of_index(walked: Walked) -> Amount:
    """Say how far the pass over the headers is."""
    return Amount(
        event="index",
        stage=walked.stage,
        done=walked.done,
        total=walked.total,
        unit=walked.unit,
        counts={"entries": walked.entries},
    )


def of_images(done: Progress) -> Amount:
    """Say how many images are done, those of an earlier call among them, and how many of this call's were rejected."""
    return Amount(
        event="progress",
        done=done.written + done.rejected + done.resumed,
        total=done.total,
        unit="images",
        counts={"rejected": done.rejected},
    )
