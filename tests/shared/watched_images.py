"""Images that note which of them are read."""

from verydeep.images.sources.source import Source


class _Watched(Source):
    def __getitem__(self, index):
        self.reads.append(index)
        return super().__getitem__(index)


def watched(source):
    """Return the images of a source; their `reads` are the indices of those that were read, in this order."""
    found = _Watched(**vars(source))
    object.__setattr__(found, "reads", [])
    return found
