"""The language of conditions: text → tree (`search.conditions`), by recursive descent.

    any   = all ("or" all)*
    all   = one ("and" one)*
    one   = "not" one | "(" any ")" | "has" ["no"] thing | "near" "(" ... ")" | "box" "(" ... ")" | test
    test  = field (":" | "=" | "<" | "<=" | ">" | ">=") value | field "in" "(" value ("," value)* ")"
          | field "in" value ".." value

docs/reference/filters.md has a table of fields and examples.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import NoReturn, cast, get_args

from search import addresses
from search.conditions import (
    Amount,
    And,
    Called,
    Has,
    InBox,
    InFolder,
    IsFormat,
    Labelled,
    Measured,
    Named,
    Near,
    Node,
    Not,
    Operator,
    Or,
    Oriented,
    Shape,
    Taken,
    Thing,
    normal_folder,
)
from search.errors import QueryError

MAX_TESTS = 200  # in one expression
MAX_DEPTH = 40  # of parentheses and "not"

_AMOUNTS, _SHAPES, _THINGS, _OPERATORS = map(get_args, (Amount, Shape, Thing, Operator))
_RANGED = ("taken", *_AMOUNTS)
FIELDS = ("camera", "lens", "label", "folder", "name", "path", "format", "orientation", *_RANGED)
_OTHERS = ("not", "has", "near", "box")
_FIRST = datetime(1, 1, 1)  # noqa: DTZ001 (wall-clock)
_FEW = 6  # names that a message lists
_PAGE = "docs/reference/filters.md has them all"

_TOKEN = re.compile(
    r"""\s*(?:(?P<mark>[(),:]|[<>]=?|=)|(?P<text>"(?:[^"]|"")*"|'(?:[^']|'')*'|[^\s"'(),:<>=]+))"""
)
_VALUE = re.compile(r"""\s*(?P<text>"(?:[^"]|"")*"|'(?:[^']|'')*'|[^\s"'(),]+)""")
_FROM = re.compile(r"""\s*(?P<text>[^\s"'(),]+?)\s*\.\.\s*""")
_NUMBER = re.compile(
    r"(?P<digits>[+-]?\d{1,30}(?:\.\d{1,30})?)(?:E(?P<power>[+-]\d{1,3}))?(?P<unit>[A-Z]*)", re.ASCII
)
_DATE = re.compile(
    r"(?P<year>\d{4})(?:-(?P<month>\d\d)(?:-(?P<day>\d\d)"
    r"(?:[T ](?P<hour>\d\d):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:\.(?P<fraction>\d{1,6}))?)?)?)?)?"
    r"(?P<zone>Z|[+-]\d\d:[0-5]\d)?",
    re.ASCII,
)
_BYTES = {"": 0, "B": 0, "KB": 3, "MB": 6, "GB": 9}
_KM = {"KM": 0, "M": -3}


def parse(text: str) -> Node:
    """Return the tree of an expression. Raises QueryError, which tells the column and what could stand there."""
    return _Parser(text).whole()


def parse_folder(path: str) -> Node:
    """Return what photos in a folder fulfil, which are known by where links lead or by the path as it stands."""
    names = map(normal_folder, (addresses.real(path), addresses.absolute(path)))
    folders = [InFolder(name) for name in sorted(set(names))]
    return folders[0] if len(folders) == 1 else Or(tuple(folders))


def parse_date(text: str) -> tuple[datetime, datetime | None]:
    """Return when the time that a text names begins, and when it is over; None: not before dates end.

    text: 2023, 2023-05, 2023-05-01, 2023-05-01T18:30 or to the second or finer, with a zone (+02:00, Z) or without.
    Raises ValueError.
    """
    match = _DATE.fullmatch(text)
    if match is None:
        raise ValueError(text)
    given = {
        name: int(value) for name, value in match.groupdict().items() if value and name not in ("zone", "fraction")
    }
    fraction = match["fraction"]
    begin = datetime(
        **{"month": 1, "day": 1, **given},
        microsecond=int((fraction or "0").ljust(6, "0")),
        tzinfo=_zone(match["zone"]),
    )
    try:
        return begin, begin + _length(begin, given, fraction)
    except OverflowError:
        return begin, None


def _length(begin: datetime, given: dict[str, int], fraction: str | None) -> timedelta:
    """How long what a date names lasts: its year, month, day, minute, second or the last digit of it."""
    if fraction is not None:
        return timedelta(microseconds=10 ** (6 - len(fraction)))
    if "minute" in given:
        return timedelta(seconds=1 if "second" in given else 60)
    if "day" in given:
        return timedelta(days=1)
    if "month" in given:
        return timedelta(days=calendar.monthrange(begin.year, begin.month)[1])
    return timedelta(days=366 if calendar.isleap(begin.year) else 365)


def _zone(text: str | None) -> timezone | None:
    if text is None:
        return None
    if text == "Z":
        return timezone(timedelta(0))
    east = timedelta(hours=int(text[1:3]), minutes=int(text[4:]))
    return timezone(east if text[0] == "+" else -east)


def _number(text: str, units: Mapping[str, int]) -> float | None:
    """Return the number that a text in upper case names; None if it is none, or not of one of the units.

    units: the power of ten that each stands for.
    """
    match = _NUMBER.fullmatch(text)
    if match is None or match["unit"] not in units:
        return None
    return float(f"{match['digits']}e{int(match['power'] or 0) + units[match['unit']]}")


class _Parser:
    """Reads one expression from left to right; `_at` is where it is, `_seen` where what it read last begins."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = self._seen = 0
        self._tests = self._depth = 0

    def whole(self) -> Node:
        node = self._any()
        if self._peek():
            self._refuse("'and', 'or' or the end")
        return node

    # ---- how tests are joined

    def _any(self) -> Node:
        parts = [self._all()]
        while self._take("or"):
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _all(self) -> Node:
        parts = [self._one()]
        while self._take("and"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _one(self) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._peek()
            self._fail(f"more than {MAX_DEPTH} conditions within one another")
        node = self._negated() if self._take("not") else self._grouped() if self._take("(") else self._test()
        self._depth -= 1
        return node

    def _negated(self) -> Node:
        return Not(self._one())

    def _grouped(self) -> Node:
        node = self._any()
        self._expect(")")
        return node

    # ---- tests

    def _test(self) -> Node:
        word = self._peek()
        self._count()
        if word == "has":
            self._take("has")
            without = self._take("no")
            has = Has(cast(Thing, self._choice(_THINGS, "something to have")))
            return Not(has) if without else has
        if word == "near":
            return self._near()
        if word == "box":
            return self._box()
        field = self._choice(FIELDS, "a condition", also=_OTHERS)
        if self._take("in"):
            return self._list(field) if self._take("(") else self._range(field)
        return self._compared(field, self._operator(field))

    def _count(self) -> None:
        self._tests += 1
        if self._tests > MAX_TESTS:
            self._fail(f"more than {MAX_TESTS} conditions in one expression")

    def _operator(self, field: str) -> str:
        known = [":"] if field == "folder" else [":", "=", *(_OPERATORS[1:] if field in _RANGED else ())]
        operator = self._peek()
        if operator not in known:
            self._refuse(_listed([f"'{name}'" for name in (*known, "in")]) + f" after {field}")
        self._take(operator)
        return operator

    def _list(self, field: str) -> Node:
        """Any of the values in parentheses, each as after ":"."""
        parts = [self._compared(field, ":")]
        while not self._take(")"):
            if not self._take(","):
                self._peek()
                self._refuse("',' or ')'")
            self._count()
            parts.append(self._compared(field, ":"))
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _range(self, field: str) -> Node:
        """From one value up to and with another."""
        match = _FROM.match(self._text, self._at)
        if match is None or field not in _RANGED:
            self._peek()
            self._refuse("'(' and values" + (", or A..B" if field in _RANGED else ""))
        self._seen, self._at = match.start("text"), match.end()
        low = self._valued(field, ">=", match["text"])
        high = self._compared(field, "<=")
        return And((low, high))

    def _compared(self, field: str, operator: str) -> Node:
        return self._valued(field, operator, self._value(field))

    def _valued(self, field: str, operator: str, value: str) -> Node:
        if field in _AMOUNTS:
            return self._measured(cast(Amount, field), operator, value)
        if field == "taken":
            return self._taken(operator, value)
        if field == "format":
            return IsFormat(value.lower())
        if field == "orientation":
            return Oriented(cast(Shape, self._one_of(value.lower(), _SHAPES, "an orientation")))
        whole = operator == "="
        if field == "label":
            return Labelled(value, whole)
        if field == "folder":
            return parse_folder(value)
        return Called(field, value, whole) if field in ("camera", "lens") else Named(field, value, whole)  # type: ignore[arg-type]

    def _measured(self, field: Amount, operator: str, value: str) -> Node:
        units = {"megapixels": {"": 6}, "size": _BYTES}.get(field, {"": 0})
        number = _number(value.upper(), units)
        if number is None:
            self._fail(f"{value!r} is no number" + (" of B, kB, MB or GB" if field == "size" else ""))
        if abs(number) > 1e18:  # beyond what databases count
            self._fail(f"{value!r} is too large")
        exact = int(number) if number.is_integer() else number
        return Measured(field, cast(Operator, "=" if operator == ":" else operator), exact)

    def _taken(self, operator: str, value: str) -> Node:
        try:
            begin, end = parse_date(value)
        except ValueError:
            self._fail(f"{value!r} is no date", hint="write 2023, 2023-05, 2023-05-01 or 2023-05-01T18:30+02:00")
        if operator in ("<", ">="):
            return Taken("<" if operator == "<" else ">=", begin)
        if end is None:  # later than dates go: what is taken at all, or nothing
            ever = {"<=": Taken(">=", _FIRST), ">": Taken("<", _FIRST)}
            return ever.get(operator, Taken(">=", begin))
        if operator in ("<=", ">"):
            return Taken("<" if operator == "<=" else ">=", end)
        return And((Taken(">=", begin), Taken("<", end)))

    def _near(self) -> Node:
        self._take("near")
        self._expect("(")
        latitude = self._degrees("a latitude", 90)
        self._expect(",")
        longitude = self._degrees("a longitude", 180)
        self._expect(",")
        text = self._value("near")
        km = _number(text.upper(), _KM)
        if km is None or km < 0:
            self._fail(f"{text!r} is no distance like 5km or 500m")
        self._expect(")")
        return Near(latitude, longitude, km)

    def _box(self) -> Node:
        self._take("box")
        self._expect("(")
        south = self._degrees("a latitude, the southern", 90)
        self._expect(",")
        west = self._degrees("a longitude, the western", 180)
        self._expect(",")
        north = self._degrees("a latitude, the northern", 90)
        if north < south:
            self._fail("the northern latitude is south of the southern")
        self._expect(",")
        east = self._degrees("a longitude, the eastern", 180)
        self._expect(")")
        return InBox(south, west, north, east)

    def _degrees(self, name: str, limit: int) -> float:
        text = self._value(name)
        degrees = _number(text.upper(), {"": 0})
        if degrees is None or abs(degrees) > limit:
            self._fail(f"{text!r} is not {name} from -{limit} to {limit}")
        return degrees

    # ---- words

    def _peek(self) -> str:
        """What comes next, keywords and fields in lower case; "" at the end. Moves no further."""
        match = _TOKEN.match(self._text, self._at)
        if match is None:
            self._seen = len(self._text) - len(self._text[self._at :].lstrip())
            if self._seen < len(self._text):
                self._fail("the quote is not closed")
            return ""
        self._seen = match.start(match.lastgroup or 0)
        return str(match[match.lastgroup or 0]).lower()

    def _take(self, wanted: str) -> bool:
        """Go past a word or mark if it comes next."""
        match = _TOKEN.match(self._text, self._at)
        if not wanted or match is None or str(match[match.lastgroup or 0]).lower() != wanted:
            return False
        self._at = match.end()
        return True

    def _expect(self, mark: str) -> None:
        if not self._take(mark):
            self._peek()
            self._refuse(f"'{mark}'")

    def _choice(self, known: Sequence[str], what: str, *, also: Sequence[str] = ()) -> str:
        word = self._peek()
        if word in known:
            self._take(word)
            return word
        if not word or not word[0].isalpha():
            self._refuse(f"{what} such as {_listed(known[:_FEW])}", hint=_PAGE if len(known) > _FEW else "")
        return self._one_of(word, (*known, *also), what)

    def _one_of(self, word: str, known: Sequence[str], what: str) -> str:
        if word not in known:
            from difflib import get_close_matches

            said = f"{word[:40]!r} is not {what}"
            if close := get_close_matches(word, known, 1):
                self._fail(said, hint=f"did you mean {close[0]}?")
            if len(known) > _FEW:
                self._fail(f"{said} such as {_listed(known[:_FEW])}", hint=_PAGE)
            self._fail(f"{said}: {_listed(known)}")
        return word

    def _value(self, field: str) -> str:
        match = _VALUE.match(self._text, self._at)
        if match is None:
            self._peek()
            self._refuse(f"a value for {field}")
        self._seen, self._at = match.start("text"), match.end()
        text = match["text"]
        if text[0] in "\"'":
            text = text[1:-1].replace(text[0] * 2, text[0])
        if not text.strip() or "\0" in text:
            self._fail(f"{field} needs a value")
        return text

    # ---- errors

    def _refuse(self, expected: str, *, hint: str = "") -> NoReturn:
        found = _TOKEN.match(self._text, self._at)
        there = repr(found[0].strip()[:40]) if found else "the end"
        self._fail(f"expected {expected}, found {there}", hint=hint)

    def _fail(self, message: str, *, hint: str = "") -> NoReturn:
        column = self._seen + 1
        raise QueryError(f"column {column} of the condition: {message}", hint=hint, column=column)


def _listed(names: Sequence[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
