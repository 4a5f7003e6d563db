"""Checks of slots, offers and the taking in of an update, in the current directory: one file for both interpreters.

Rule: as in pure_checks.py. What was signed lies in made/ (test_update.py makes it with the key of made/update.pub):
NAME.update is a file as `peanut update build` writes it.
"""

import os

import choice
from node import offer, receive, trial
from node import update as jobs
from node.receive import CHUNK, WINDOW, Files, Receiver

BOARD = "sim"


def update(name="good"):
    """(offer, stream) of a file that was made."""
    with open("made/" + name + ".update", "rb") as f:
        data = f.read()
    first = data.index(b"\n")
    end = data.index(b"\n", first + 1)
    return data[:end], data[end + 1 :]


def judged(raw, kind="greenhouse", board=BOARD, running=(0, 0), gone=None):
    """The manifest, or the reason of the refusal."""
    try:
        return offer.judge(raw, kind, board, running, gone)
    except ValueError as e:
        return str(e)


def clear():
    """The current directory as before: made/ and update.pub."""
    for name in os.listdir("."):
        if name not in ("made", "update.pub"):
            while receive._remove(name):
                pass


class Feeder:
    """The gateway's side: answers each question, as `alter(chunks)` makes of it, and counts the questions."""

    def __init__(self, raw, stream):
        self.id = receive.offer_id(raw)
        self.stream = stream
        self.questions = []
        self.whys = []
        self.now = 0
        self.alter = lambda chunks: chunks

    def chunk(self, at):
        return self.id + at.to_bytes(4, "big") + self.stream[at : at + CHUNK]

    def serve(self, r, until=None, limit=5000):
        """Until there is a verdict, or `until()`."""
        while r.stage == "receiving" and limit and not (until and until()):
            limit -= 1
            self.now += 20
            r.step(self.now)
            if r.news and r.stage == "receiving":
                r.news = False
                told = r.told()
                assert told["of"] == len(self.stream)
                self.questions.append(told["at"])
                if "why" in told:
                    self.whys.append(told["why"])
                end = min(told["at"] + CHUNK * WINDOW, len(self.stream))
                for data in self.alter([self.chunk(at) for at in range(told["at"], end, CHUNK)]):
                    r.chunk(memoryview(data), self.now)
        assert limit, "no end"
        return r.stage


def receiver(name="good", slot="a"):
    raw, stream = update(name)
    return Receiver(raw, judged(raw), Files(slot), 0), Feeder(raw, stream)


def tree(folder):
    """Every file under `folder`, relative to it."""
    out = []
    for name in sorted(os.listdir(folder)):
        try:
            out += [name + "/" + inner for inner in tree(folder + "/" + name)]
        except OSError:
            out.append(name)
    return out


WHOLE = ["choice.mpy", "index", "node/__init__.mpy", "node/big.mpy", "node/start.mpy", "offer"]


# -- whose it is, and for whom -----------------------------------------------------------------------------------------


def check_an_offer_of_this_fleet_is_taken():
    m = judged(update()[0])
    assert (m["seq"], m["version"], m["image"]) == (10, "1.0", False), m


def check_what_was_not_signed_by_the_fleet_is_refused():
    """Another key; a changed manifest; a signature cut, grown, of zeros, of another manifest; none at all."""
    raw = update()[0]
    text, code = raw.split(b"\n")
    forged = [update("stranger")[0], text.replace(b"10", b"11", 1) + b"\n" + code, text, text + b"\n", b"", b"\n"]
    forged += [text + b"\n" + code[:-4], text + b"\nAAAA" + code, text + b"\n" + b"A" * 512, b"{}\n" + code]
    forged += [text + b" \n" + code, text + b"\n!!" + code[:511], update("newer")[0].split(b"\n")[0] + b"\n" + code]
    for one in forged:
        assert judged(one).startswith("signature: "), (one[:80], judged(one))
    assert judged(bytes(3000)).startswith("format: ")


def check_who_can_sign_nothing_cannot_hide_in_the_padding():
    """made/forgeries: blocks that a careless reader of PKCS #1 takes, each already to the power of the private key."""
    with open("update.pub", "rb") as f:
        modulus = f.read()
    with open("made/forgeries", "rb") as f:
        data = f.read()
    count = len(data) // offer.BYTES
    assert count >= 6
    for i in range(count):
        block = data[i * offer.BYTES : (i + 1) * offer.BYTES]
        assert offer.signed(b"text", block, modulus) == (i == 0), i  # the first is the honest one


def check_it_must_be_for_this_node():
    for name, why in (("vehicle", "kind: "), ("board", "board: "), ("mpy", "mpy: "), ("format", "format: ")):
        assert judged(update(name)[0]).startswith(why), (name, judged(update(name)[0]))
    assert judged(update("board")[0], board="esp32-devkitc")["seq"] == 10


def check_nothing_older_and_nothing_twice():
    raw = update()[0]
    for running, gone, why in (
        ((10, 0), None, "seq: 10 is not newer than 10"),
        ((11, 0), None, "seq: 10 is not newer than 11"),
        ((9, 0), 10, "seq: 10 was tried and given up"),
    ):
        assert judged(raw, running=running, gone=gone) == why
    assert judged(raw, running=(9, 99), gone=9)["seq"] == 10


# -- taking it in ------------------------------------------------------------------------------------------------------


def check_it_is_received_whole():
    r, feeder = receiver()
    assert feeder.serve(r) == "ready"
    assert tree("a") == WHOLE
    assert feeder.questions == list(range(0, len(feeder.stream), CHUNK * WINDOW))
    assert feeder.whys == []


def check_reordered_repeated_and_strange_chunks_do_no_harm():
    """Backwards, each twice, of another update, too long, too short: said, asked for again, and in the end whole."""
    raw, stream = update("newer")
    other = Feeder(raw, stream)
    tricks = (
        lambda chunks: chunks[::-1],
        lambda chunks: [c for c in chunks for _ in (0, 1)],
        lambda chunks: [other.chunk(0)] + chunks,
        lambda chunks: [chunks[0] + bytes(CHUNK), b"", b"\0" * 7, chunks[0][:8]] + chunks,
        lambda chunks: chunks[:1] + chunks[2:],
    )
    for i in range(len(tricks)):
        clear()
        r, feeder = receiver()
        feeder.alter = tricks[i]
        assert feeder.serve(r) == "ready", (i, r.why)
        assert tree("a") == WHOLE
        assert "chunk of" in feeder.whys[0], i


def check_a_damaged_file_is_asked_for_again_and_given_up_at_last():
    spoil = [5]

    def spoiled(chunks):
        if spoil[0]:
            spoil[0] -= 1
            return [chunks[0][:60] + b"\xff\x00\xff" + chunks[0][63:]] + chunks[1:]
        return chunks

    for times, stage in ((2, "ready"), (5, "failed")):
        clear()
        spoil[0] = times
        r, feeder = receiver()
        feeder.alter = spoiled
        assert feeder.serve(r) == stage
        assert feeder.whys[0] == "damaged: index"
    while r.step(0):
        pass
    assert r.why == "damaged: index"
    assert "a" not in os.listdir(".")  # and what there was of it is gone


def check_another_file_than_the_signed_one_is_not_taken():
    """Half of another version: its bytes in the middle of this update."""
    r, feeder = receiver()
    stream = update("newer")[1]
    half = len(stream) // 2 // CHUNK * CHUNK
    assert len(stream) == len(feeder.stream)
    feeder.stream = feeder.stream[:half] + stream[half:]
    assert feeder.serve(r) == "failed"
    assert r.why.startswith("damaged: node/"), r.why


def check_it_goes_on_after_a_reset():
    """The files that are whole are read again and not asked for."""
    r, feeder = receiver()
    feeder.serve(r, lambda: len(feeder.questions) == 4)
    r, again = receiver()
    assert again.serve(r) == "ready"
    assert again.questions[0] > 0
    assert len(again.questions) < len(feeder.stream) // (CHUNK * WINDOW)
    assert tree("a") == WHOLE
    r, third = receiver()  # all of it is there
    assert third.serve(r) == "ready"
    assert third.questions == []


def check_a_reset_leaves_nothing_of_another_version():
    """What was half received, and what was spoilt meanwhile, is not part of the next."""
    r, feeder = receiver("newer")
    feeder.serve(r, lambda: len(feeder.questions) == 4)
    with open("a/node/stray.mpy", "w") as f:
        f.write("x")
    r, feeder = receiver()
    assert feeder.serve(r) == "ready"
    assert tree("a") == WHOLE
    with open("a/node/big.mpy", "r+b") as f:
        f.write(b"spoilt")
    r, feeder = receiver()
    assert feeder.serve(r) == "ready"
    assert feeder.questions  # the spoilt one came again
    assert Files("a").good(("node/big.mpy",) + _listed("node/big.mpy"))


def _listed(path):
    with open("a/index") as f:
        for line in f:
            sha, size, name = line.strip().split(" ", 2)
            if name == path:
                return int(size), sha
    raise AssertionError(path)


def check_silence_is_asked_into_again():
    r, feeder = receiver()
    feeder.alter = lambda chunks: []
    feeder.serve(r, lambda: len(feeder.questions) == 3)
    assert feeder.questions == [0, 0, 0]
    assert feeder.now > 2 * receive.ASK_MS
    r.step(receive.QUIET_MS - 1)
    assert r.stage == "receiving"
    r.step(receive.QUIET_MS + 1)
    assert (r.stage, r.why) == ("failed", "nobody sends it")


def check_paths_stay_in_the_slot():
    """Signed by whoever: a path that leaves the slot is refused."""
    for name in ("absolute", "upwards"):
        clear()
        r, feeder = receiver(name)
        assert feeder.serve(r) == "failed"
        assert r.why.startswith("format: "), r.why


def check_a_full_flash_is_said():
    class Full(Files):
        def put(self, part, at, data):
            if part[0] == "node/big.mpy":
                raise OSError(28)
            super().put(part, at, data)

    raw, stream = update()
    r = Receiver(raw, judged(raw), Full("a"), 0)
    assert Feeder(raw, stream).serve(r) == "failed"
    assert r.why.startswith("flash: "), r.why
    while r.step(0):
        pass
    assert "a" not in os.listdir(".")


# -- which slot runs ---------------------------------------------------------------------------------------------------


def check_a_trial_has_three_starts():
    assert choice.pick() == ""
    assert choice.spare() == "a"
    choice.begin("a", 10, "1.0", [])
    assert [choice.pick() for _ in range(5)] == ["/a", "/a", "/a", "", ""]
    assert choice.read()["gone"] == [10, "no proof in 3 starts"]
    assert choice.read()["run"][0] == ""


def check_what_proved_itself_stays():
    choice.begin("a", 10, "1.0", [])
    choice.pick()
    choice.commit()
    assert [choice.pick() for _ in range(5)] == ["/a"] * 5
    assert choice.spare() == "b"
    choice.begin("b", 11, "1.1", [])
    choice.pick()
    choice.commit()
    assert choice.read()["run"] == ["b", 11, "1.1"]
    assert choice.read()["old"] == ["a", 10, "1.0"]
    assert not choice.back("only if on trial", True)
    assert choice.back("three crashes")  # b -> a -> what was flashed
    assert choice.pick() == "/a"
    assert choice.read()["gone"] == [11, "three crashes"]
    assert choice.back("three more")
    assert choice.pick() == ""
    assert not choice.back("and there is nothing before")


def check_the_slot_that_is_overwritten_is_no_way_back():
    """Nor is it ever the one that runs."""
    assert choice.spare() == "a"
    choice.begin("a", 10, "1.0", [])
    choice.commit()
    assert choice.spare() == "b"
    choice.begin("b", 11, "1.1", [])
    choice.commit()
    assert choice.spare() == "a"
    assert choice.back("crashes")
    assert choice.pick() == ""  # not half of a


def check_a_trial_that_fails_returns_at_once():
    choice.begin("a", 10, "1.0", [])
    choice.pick()
    assert choice.back("ImportError: node", True)
    assert choice.pick() == ""
    assert choice.read()["gone"] == [10, "ImportError: node"]


class App:
    """As much of node.app.App as the end of an update needs."""

    heats = True
    why = None

    def _idle(self):
        return not self.heats

    def _ailing(self):
        return []

    def restart(self, why):
        self.why = why


class Ready:
    """An update that is whole on flash."""

    stage = "ready"
    news = False
    slot, seq, version = "a", 10, "1.0"

    def step(self, now):
        return False

    def told(self):
        return {"stage": self.stage}


def check_the_restart_for_an_update_waits_until_nothing_heats():
    app = App()
    job = jobs.Job(app)
    job._receiver = Ready()
    for now in range(0, 3600000, 60000):
        job.step(now)
    assert app.why is None
    assert "trial" not in choice.read()
    app.heats = False
    job.step(3600000)
    assert app.why == "update"
    assert choice.read()["trial"][:3] == ["a", 10, "1.0"]


class Box:
    """As much of node.blackbox.BlackBox as judging needs."""

    was = "crash: MemoryError"

    def __init__(self, crashes):
        self.crashes = crashes
        self.planned = None

    def save(self):
        pass

    def ending(self, why, planned=False):
        self.planned = planned


def check_crashes_in_a_row_bring_back_what_was_before():
    """Of what was kept: the one before it, and then what was flashed, which has nowhere to go but to rescue. On trial
    crashes do not count: its starts do."""
    for slot, seq in (("a", 10), ("b", 11)):
        choice.begin(slot, seq, "1", [])
        box = Box(5)
        assert not choice.judge(box, 3)
        assert box.crashes == 0
        choice.commit()
    assert not choice.judge(Box(2), 3)
    for expected in ("/a", ""):
        box = Box(3)
        assert choice.judge(box, 3)
        assert (box.crashes, box.planned) == (0, True)
        assert choice.pick() == expected
    assert choice.read()["gone"] == [10, "3 crashes in a row: crash: MemoryError"]
    box = Box(3)
    assert not choice.judge(box, 3)
    assert box.crashes == 3


def check_damage_means_what_was_flashed():
    for text in ("", "{", "[]", "3", "{}", '{"run":["c",1,""]}', '{"run":["a"]}', '{"run":null}', '{"run":[[],1,2]}'):
        with open(choice.FILE, "w") as f:
            f.write(text)
        assert choice.pick() == "", text
    with open(choice.FILE, "w") as f:
        f.write('{"run":["a",10,"1"],"trial":["../x",1,"",3,[]]}')
    assert choice.pick() == ""


def check_a_start_that_cannot_be_counted_is_not_given():
    choice.begin("a", 10, "1.0", [])
    write, choice.write = choice.write, _refuse
    try:
        assert choice.pick() == ""
    finally:
        choice.write = write
    assert choice.pick() == "/a"


def _refuse(s):
    raise OSError(28)


# -- proving itself ----------------------------------------------------------------------------------------------------


def _trial(looks, known=()):
    """The verdict after looks: (seconds, online, faults)."""
    t = trial.Trial(list(known), 300000, 0)
    for s, online, faults in looks:
        t.step(s * 1000, online, faults)
        if t.verdict:
            return s, t.verdict
    return None


def check_five_good_minutes_in_a_row():
    assert _trial([(s, True, []) for s in range(0, 1000, 10)]) == (300, "good")
    assert _trial([(s, s > 100, []) for s in range(0, 1000, 10)]) == (400, "good")
    assert _trial([(s, s % 200 > 0, []) for s in range(0, 2000, 10)]) == (1000, "no session with the gateway")
    assert _trial([(s, True, ["sensor: silent"]) for s in range(0, 2000, 10)]) == (910, "control: sensor: silent")


def check_a_fault_of_before_is_not_its_doing():
    assert _trial([(s, True, ["tank"]) for s in range(0, 1000, 10)], ["tank"]) == (300, "good")


class Block:
    """An OTA partition: esp32.Partition's block device, erased to ones, writing only clears bits."""

    def __init__(self, label, blocks, other=None):
        self.label = label
        self.data = bytearray(b"\xa5" * (blocks * 4096))
        self.other = other
        self.boot = self.valid = False

    def ioctl(self, op, arg):
        if op == 6:
            self.data[arg * 4096 : (arg + 1) * 4096] = b"\xff" * 4096
            return 0
        return len(self.data) // 4096 if op == 4 else 4096

    def readblocks(self, block, buffer, off=0):
        at = block * 4096 + off
        buffer[:] = self.data[at : at + len(buffer)]

    def writeblocks(self, block, data, off=0):
        at = block * 4096 + off
        for i in range(len(data)):
            self.data[at + i] &= data[i]

    def get_next_update(self):
        if self.other is None:
            raise OSError(2)
        return self.other

    def info(self):
        return (0, 16, 0x10000, len(self.data), self.label, False)

    def set_boot(self):
        self.boot = True

    def mark_app_valid_cancel_rollback(self):
        self.valid = True


def check_an_image_goes_to_the_other_partition():
    from node import image

    running = Block("ota_0", 16, Block("ota_1", 16))
    raw, stream = update("image")
    m = judged(raw)
    assert m["image"]
    place = image.Image(running)
    assert place.fits(m["size"] - m["index"])
    assert not place.fits(16 * 4096 + 1)
    feeder = Feeder(raw, stream)
    r = Receiver(raw, m, place, 0)
    feeder.serve(r, lambda: len(feeder.questions) == 8)
    r = Receiver(raw, m, image.Image(running), 0)  # a reset
    again = Feeder(raw, stream)
    assert again.serve(r) == "ready"
    assert again.questions[0] >= 16384
    body = stream[m["index"] :]
    assert running.other.data[: len(body)] == body
    place.begin_trial(m["seq"], m["version"])
    assert running.other.boot
    s = choice.read()
    assert image.on_trial(s, running.other)
    image.commit(running.other)
    assert running.other.valid
    assert not image.on_trial(choice.read(), running.other)
    assert judged(raw, running=(0, choice.read()["image"][1])) == "seq: 10 is not newer than 10"


def check_an_image_that_the_boot_loader_took_back_is_told():
    from node import image

    running = Block("ota_0", 16, Block("ota_1", 16))
    for why in (None, "control: sensor"):
        clear()
        image.Image(running).begin_trial(10, "1.28")
        if why:
            image.give_up(why)
        assert not image.on_trial(choice.read(), running)
        assert choice.read()["gone"] == [10, why or "image: the boot loader returned to the one before"]
    try:
        image.Image(Block("factory", 16))
    except ValueError:
        return
    raise AssertionError("a second slot where there is none")


def checks():
    """(name, function) of every check in this file."""
    everything = globals()
    return [(name, everything[name]) for name in sorted(everything) if name.startswith("check_")]


if __name__ == "__main__":
    for _name, _check in checks():
        clear()
        _check()
        print("ok", _name)
