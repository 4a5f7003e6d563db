"""One update from its offer to the trial of what it brought: which helper is in memory when, and what is told.

Rule: nothing of an update runs before node/offer.py has judged it and node/receive.py has it whole on flash. What
runs on trial is in force only after node/trial.py says so; else what was before returns, with the reason. In memory
only while there is an update (see node.forget).
"""

import json

from node import BUILT, borrow, clock, forget, log


class Job:
    """One at a time. over: there is nothing more to do.

    app: node.app.App; this module and node/ota.py are parts of it that are seldom needed.
    """

    def __init__(self, app):
        self._app = app
        self._told = None  # the body of the next status
        self.over = False
        self._receiver = None
        self._image = None  # node.image.Image, for one that is received
        self._trial = None
        self._on_trial = None  # "app" or "image"

    def begin(self, now):
        """At the start of the node: what runs, how the last update ended, and whether one is on trial."""
        import choice

        s = choice.read()
        if "trial" in s:
            self._begin_trial("app", s["trial"], now)
        elif "image" in s:
            from node import image

            if image.on_trial(s):
                self._begin_trial("image", s["image"], now)
            s = choice.read()
        if self._trial is None:
            self._say("returned" if "gone" in s else "running")
            self.over = True

    def _begin_trial(self, sort, entry, now):
        from node import trial

        self._on_trial = sort
        known = entry[4] if sort == "app" else []
        self._trial = trial.Trial(known, int(self._app._cfg["link"]["health_s"] * 1000), now)
        self._say("trial")

    def _say(self, stage, why=None):
        """What runs, and how it stands with an update."""
        import choice

        s = choice.read()
        run = s["run"]
        self._told = {"stage": stage, "slot": run[0] or "factory", "seq": run[1], "version": run[2]}
        if s.get("image"):
            self._told["image"] = s["image"][1:3]
        if stage == "trial":
            entry = s["trial"] if self._on_trial == "app" else s["image"]
            self._told["offer"] = entry[1]
        elif stage == "returned":
            self._told["offer"], self._told["why"] = s["gone"]
        elif why is not None:
            self._told["why"] = why
        forget("choice")

    def tell(self):
        """What is to be told on <root>/ota/status: (payload, whether it is retained), or None."""
        body, self._told = self._told, None
        if body is None:
            return None
        body["ts"] = clock.unix()
        if body["stage"] != "receiving":
            log.info("update", "%s %s" % (body["stage"], body.get("why") or ""))
        return json.dumps(body), body["stage"] != "receiving"

    # -- what comes from the gateway ---------------------------------------------------------------------------------

    def desired(self, raw, now):
        """An offer came."""
        if self._app._changes["ota"].take(now):
            why = "busy: too many offers"
            log.warn("update", why)
            self._told = {"stage": "refused", "offer": _seq(raw), "why": why}
            self.over = self.over or (self._receiver is None and self._trial is None)
            return None
        if not raw:
            return self._withdraw()
        if self._trial is not None:
            return self._say("trial")
        from node.receive import offer_id

        if self._receiver is not None and self._receiver.id == offer_id(raw):
            self._receiver.news = True  # whoever offers it again wants to know how far it is
            return None
        self.over = False
        try:
            self._take(raw, now)
        except (ValueError, OSError, MemoryError, KeyError) as e:
            why = str(e) if isinstance(e, ValueError) else "busy: %s: %s" % (type(e).__name__, e)
            log.warn("update", "refused: " + why)
            self._refuse(why, _seq(raw))
            self.over = self._receiver is None
        return None

    def _refuse(self, why, seq):
        """Why not; of what was tried already, how that ended."""
        import choice

        self._say("returned" if choice.read().get("gone", (None,))[0] == seq and seq else "refused", why)
        self._told["offer"] = seq

    def _take(self, raw, now):
        import choice

        from node import receive

        offer = borrow("node.offer", "node.strictjson")
        s = choice.read()
        cfg = self._app._cfg
        seqs = (max(s["run"][1], BUILT), s["image"][1] if s.get("image") else 0)
        m = offer.judge(raw, cfg["kind"], cfg["board"]["name"], seqs, s.get("gone", (None,))[0])
        del offer
        borrow()  # its room is the receiver's
        if m["image"]:
            from node import image

            place = self._image = image.Image()
            if not place.fits(m["size"] - m["index"]):
                raise ValueError("image: too large for its slot")
        else:
            self._image = None
            place = receive.Files(choice.spare())
        forget("choice")
        log.info("update", "receiving %d, %s" % (m["seq"], m["version"]))
        self._receiver = receive.Receiver(raw, m, place, now)

    def chunk(self, data, now):
        if self._receiver is not None:
            self._receiver.chunk(data, now)

    def _withdraw(self):
        if self._trial is not None:
            self._back("withdrawn")
        elif self._receiver is not None and self._receiver.stage != "failed":
            self._receiver.give_up("withdrawn")
        else:
            self.over = True

    # -- piece by piece ----------------------------------------------------------------------------------------------

    def step(self, now):
        """Do a little. True: there is more to do at once."""
        if self._trial is not None:
            self._look(now)
        elif self._receiver is not None:
            return self._receive(now)
        return False

    def _receive(self, now):
        r = self._receiver
        soon = r.step(now)
        if r.stage == "ready" and self._app._idle():
            r.stage = "restarting"
            r.news = True
        if r.news:
            r.news = False
            self._told = r.told()
        if r.stage == "restarting":
            try:
                self._switch(r)
                self._app.restart("update")
            except (OSError, ValueError) as e:
                r.give_up("flash: %s" % e)
                return True
            self._receiver = None
            self.over = True
        elif r.stage == "failed" and not soon:
            self._receiver = None
            self.over = True
        return soon

    def _switch(self, r):
        if self._image is not None:
            self._image.begin_trial(r.seq, r.version)
        else:
            import choice

            choice.begin(r.slot, r.seq, r.version, self._app._ailing())

    def _look(self, now):
        self._trial.step(now, self._app._client.ready, self._app._ailing())
        verdict = self._trial.verdict
        if verdict is None:
            return None
        if verdict != "good":
            return self._back(verdict)
        try:
            if self._on_trial == "app":
                import choice

                choice.commit()
            else:
                from node import image

                image.commit()
        except OSError as e:
            return self._back("flash: %s" % e)
        self._trial = None
        self._say("running")
        self.over = True
        return None

    def _back(self, why):
        """What was before returns at the next start; the boot loader does it for an image."""
        import choice

        if self._on_trial == "app":
            choice.back(why, True)
        else:
            from node import image

            image.give_up(why)
        self._trial = None
        self.over = True
        self._app.restart("update: " + why)


def _seq(raw):
    """The number that an offer says it has, whoever wrote it; None if it says none."""
    try:
        seq = json.loads(raw.partition(b"\n")[0])["seq"]
        return seq if isinstance(seq, int) else None
    except (ValueError, KeyError, TypeError):
        return None
