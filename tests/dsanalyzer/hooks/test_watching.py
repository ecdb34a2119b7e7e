"""`dsanalyzer watch` counts every minibatch of a loop in which an optimizer steps, and no other."""

import pytest
from torch.utils.data import DataLoader

from dsanalyzer.hooks import training, watching


@pytest.fixture
def watcher(monkeypatch):
    """A watcher that reports after each minibatch; its messages in `told`."""

    class Kept:
        def __init__(self, *_):
            self.told = []

        def event(self, message):
            self.told.append(message)

    monkeypatch.setattr(watching, "Connection", Kept)
    monkeypatch.setattr(watching, "REPORT_S", 0.0)
    monkeypatch.setattr(training, "_steps", 0)
    watcher = watching.Watcher({"socket": ""})
    watcher.told = watcher._events.told
    return watcher


def iterated(watcher, loader, every, stop=None):
    """Steps after every so many minibatches; breaks off at the one numbered `stop`."""
    batches = watcher.observe(loader, lambda: type(loader).__iter__(loader))
    for number, _ in enumerate(batches, 1):
        if number == stop:
            break
        if every and number % every == 0:
            training.count_step()
    batches.close()


def test_minibatches_of_which_several_make_a_step_all_count(watcher):
    iterated(watcher, DataLoader(range(64), batch_size=4), every=8)

    assert sum(message["samples"] for message in watcher.told) == 64


def test_validation_does_not_count(watcher):
    iterated(watcher, DataLoader(range(64), batch_size=4), every=0)

    assert watcher.told == []


def test_what_came_before_a_break_counts(watcher, monkeypatch):
    monkeypatch.setattr(watching, "REPORT_S", 60.0)
    iterated(watcher, DataLoader(range(64), batch_size=4), every=1, stop=7)

    assert [message["samples"] for message in watcher.told] == [28]


def test_an_iterator_that_is_kept_open_is_no_loop(watcher):
    """A first minibatch to look at, as in tutorials, while another iterator trains."""
    loader = DataLoader(range(64), batch_size=4)
    looked_at = watcher.observe(loader, lambda: DataLoader.__iter__(loader))
    next(looked_at)
    training.count_step()
    looked_at.close()

    assert watcher.told == []


def test_loaders_are_numbered_and_not_kept(watcher):
    import gc
    import weakref

    first, second = (DataLoader(range(8), batch_size=4) for _ in range(2))
    for loader in (first, second, first):
        iterated(watcher, loader, every=1)
    gone = weakref.ref(second)
    del loader, second
    gc.collect()

    assert [message["loader"] for message in watcher.told] == [0, 0, 0, 1, 1, 1, 0, 0, 0]
    assert gone() is None
