"""What memory_run.py does where the heap is in pieces. A module of its own: where it is whole, this has no part."""

import gc
import json

from node import forget


def name():
    """The names of the code lie in blocks that double. The next of them is no matter of this."""
    for name in ("node.update", "node.receive", "node.offer", "node.desired"):
        __import__(name)
        forget(name)
    forget("node.config", "node.slots", "node.strictjson", "choice")


def cut(block):
    """Leave no free block larger than `block` bytes: fill the heap with such and a small one after each, free the
    large. Returns (bytes of the small ones, them)."""
    gc.collect()
    before = gc.mem_alloc()
    large = []
    small = []
    try:
        while True:
            large.append(bytearray(block))
            small.append(bytearray(1))
    except MemoryError:
        pass
    large = None
    gc.collect()
    return gc.mem_alloc() - before, small


def use(app):
    """What the node still can: judge a configuration, and take an update. Returns what came of both."""
    app.restart = lambda why: None
    app._configure(b'{"gen":1,"report":{"telemetry_s":30},"control":{"schedule":"06:00 18, 20:00 14"}}', True)
    return {"configured": [app._asked["gen"], app._asked["errors"]], "updated": receive(app)}


def receive(app):
    """Take in made.update, from its offer to the restart; the last word on it."""
    from node import update

    app._idle = lambda: True
    job = update.Job(app)
    now = 0
    told = None
    with open("made.update", "rb") as f:
        job.desired(f.readline() + f.readline().strip(), now)
        start = f.tell()
        while not job.over:
            now += 20
            job.step(now)
            told = job.tell() or told
            if told is not None and '"receiving"' in told[0]:
                body = json.loads(told[0])
                told = None
                for place in range(body["at"], min(body["at"] + 4096, body["of"]), 1024):
                    f.seek(start + place)
                    job.chunk(job._receiver.id + place.to_bytes(4, "big") + f.read(1024), now)
    return told[0]
