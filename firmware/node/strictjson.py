"""A strict reader of small JSON documents (RFC 8259).

Rule: the same answer on every interpreter. MicroPython's json.loads takes `{"a" 1,,}` for a document and lets the
second of two equal keys win; a command that moves a heater deserves better. Refused beyond the RFC: equal keys twice,
nesting deeper than DEPTH, surrogate escapes, numbers longer than NUMBER characters.
"""

DEPTH = 6
NUMBER = 24

_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_WORDS = (("true", True), ("false", False), ("null", None))


class JSONError(ValueError):
    """The document is not strict JSON; the text says what was found, and at which character."""


def loads(data):
    """The value of `data` (bytes, or str). Raises JSONError; never anything else."""
    if not isinstance(data, str):
        try:
            data = bytes(data).decode()
        except UnicodeError:
            raise JSONError("not UTF-8")
    reader = _Reader(data)
    value = reader.value(0)
    if reader._peek():
        reader._fail("text after the end")
    return value


class _Reader:
    def __init__(self, text):
        self.text = text
        self.at = 0

    def _fail(self, what):
        raise JSONError("%s at character %d" % (what, self.at + 1))

    def _peek(self):
        """The next character that is not white space, '' at the end."""
        text = self.text
        while self.at < len(text) and text[self.at] in " \t\r\n":
            self.at += 1
        return text[self.at : self.at + 1]

    def value(self, depth):
        c = self._peek()
        if c == "{" or c == "[":
            if depth >= DEPTH:
                self._fail("nesting too deep")
            self.at += 1
            return self._object(depth + 1) if c == "{" else self._array(depth + 1)
        if c == '"':
            return self._string()
        if c and c in "-0123456789":
            return self._number()
        for word, value in _WORDS:
            if self.text.startswith(word, self.at):
                self.at += len(word)
                return value
        return self._fail("no value there" if c else "unexpected end")

    def _object(self, depth):
        out = {}
        if self._peek() == "}":
            self.at += 1
            return out
        while True:
            if self._peek() != '"':
                self._fail("a key in quotes expected")
            key = self._string()
            if key in out:
                self._fail("key given twice")
            if self._peek() != ":":
                self._fail("':' expected")
            self.at += 1
            out[key] = self.value(depth)
            if self._more("}"):
                return out

    def _array(self, depth):
        out = []
        if self._peek() == "]":
            self.at += 1
            return out
        while True:
            out.append(self.value(depth))
            if self._more("]"):
                return out

    def _more(self, end):
        c = self._peek()
        if c != "," and c != end:
            self._fail("',' or '%s' expected" % end)
        self.at += 1
        return c == end

    def _string(self):
        text = self.text
        self.at += 1
        out = []
        start = self.at
        while True:
            if self.at >= len(text):
                self._fail("unexpected end")
            c = text[self.at]
            if c < " ":
                self._fail("control character in a string")
            if c == '"' or c == "\\":
                out.append(text[start : self.at])
                self.at += 1
                if c == '"':
                    return "".join(out)
                out.append(self._escape())
                start = self.at
            else:
                self.at += 1

    def _escape(self):
        c = self.text[self.at : self.at + 1]
        if c in _ESCAPES:
            self.at += 1
            return _ESCAPES[c]
        digits = self.text[self.at + 1 : self.at + 5]
        if c != "u" or len(digits) != 4:
            self._fail("an escape that is none")
        code = 0
        for d in digits:
            n = "0123456789abcdef".find(d.lower())
            if n < 0:
                self._fail("an escape that is none")
            code = code << 4 | n
        if 0xD800 <= code < 0xE000:
            self._fail("surrogate escape")
        self.at += 5
        return chr(code)

    def _number(self):
        """int or float, by the grammar of RFC 8259 section 6."""
        text = self.text
        start = self.at
        if text[self.at] == "-":
            self.at += 1
        if text[self.at : self.at + 1] == "0":
            self.at += 1
        else:
            self._digits()
        real = False
        if text[self.at : self.at + 1] == ".":
            real = True
            self.at += 1
            self._digits()
        c = text[self.at : self.at + 1]
        if c == "e" or c == "E":
            real = True
            self.at += 1
            c = text[self.at : self.at + 1]
            if c == "+" or c == "-":
                self.at += 1
            self._digits()
        if self.at - start > NUMBER:
            self._fail("number too long")
        number = text[start : self.at]
        return float(number) if real else int(number)

    def _digits(self):
        start = self.at
        text = self.text
        while self.at < len(text) and text[self.at] in "0123456789":
            self.at += 1
        if self.at == start:
            self._fail("digit expected")
