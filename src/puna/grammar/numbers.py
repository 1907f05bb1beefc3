"""Numbers between bounds, as expressions over JSON's decimal notation.

Pure. Bounds are exact: a text matches if and only if its value keeps them. Written numbers have a bounded length, at
most DIGITS significant digits unless a bound itself needs more, so that a number always ends and survives a double.
Bounded numbers are written without an exponent; zero is never written with a minus.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Context, Decimal
from fractions import Fraction
from typing import cast

from puna.grammar.gbnf import EMPTY, NEVER, Expression, Ref, Repeat, Rules, Terminal, chars, choice, optional, seq, span

DIGITS = 15
_DIGIT = span("0", "9")
_LARGEST_STEP = 128
_LARGEST_BOUND = Decimal(10) ** 30
_MOST_FRACTIONS = 1000
_MOST_PLACES = DIGITS


def decimal(number: float) -> Decimal:
    """As JSON writes it: 0.1 is a tenth."""
    return Decimal(number) if isinstance(number, int) else Decimal(str(number))


def _coarse(bound: Decimal | None, rounding: str) -> Decimal | None:
    if bound is None or -cast("int", bound.as_tuple().exponent) <= _MOST_PLACES:
        return bound
    return bound.quantize(Decimal(1).scaleb(-_MOST_PLACES), rounding, Context(prec=1000))


def divides(step: Decimal, number: Decimal) -> bool:
    """Whether `number` is a multiple of `step`, exactly, however far apart they are."""
    return Fraction(number) % Fraction(step) == 0


@dataclass(frozen=True, slots=True)
class Bounds:
    """An interval; None: open. `low_in`, `high_in`: the bound itself belongs to it."""

    low: Decimal | None = None
    high: Decimal | None = None
    low_in: bool = True
    high_in: bool = True

    @property
    def open(self) -> bool:
        return self.low is None and self.high is None

    @property
    def empty(self) -> bool:
        if self.low is None or self.high is None:
            return False
        return self.low > self.high or (self.low == self.high and not (self.low_in and self.high_in))

    def meet(self, other: Bounds) -> Bounds:
        """What lies in both."""
        low, low_in = self.low, self.low_in
        if other.low is not None and (low is None or other.low > low or (other.low == low and not other.low_in)):
            low, low_in = other.low, other.low_in
        high, high_in = self.high, self.high_in
        if other.high is not None and (high is None or other.high < high or (other.high == high and not other.high_in)):
            high, high_in = other.high, other.high_in
        return Bounds(low, high, low_in, high_in)

    def near(self) -> Bounds:
        """What of it is written: without ends beyond every written number, and ends of at most _MOST_PLACES places."""
        low = None if self.low is not None and self.low < -_LARGEST_BOUND else self.low
        high = None if self.high is not None and self.high > _LARGEST_BOUND else self.high
        inner_low, inner_high = _coarse(low, "ROUND_CEILING"), _coarse(high, "ROUND_FLOOR")
        return Bounds(inner_low, inner_high, self.low_in or inner_low != low, self.high_in or inner_high != high)

    def integers(self) -> tuple[int | None, int | None]:
        """The first and the last integer inside."""
        low = high = None
        if self.low is not None:
            low = int(self.low.to_integral_value("ROUND_CEILING"))
            low += low == self.low and not self.low_in
        if self.high is not None:
            high = int(self.high.to_integral_value("ROUND_FLOOR"))
            high -= high == self.high and not self.high_in
        return low, high


# ------------------------------------------------------------------------------------------------------- integers


def integers(rules: Rules, bounds: Bounds, step: int = 1) -> Expression | None:
    """Every multiple of `step` inside `bounds`. None: not expressible in a grammar of reasonable size.

    An open end stops at DIGITS digits, or where the other end needs more.
    """
    zeros = len(str(step)) - len(str(step).rstrip("0"))
    unit = 10**zeros
    low, high = bounds.near().integers()
    known = [bound for bound in (low, high) if bound is not None]
    if step // unit > _LARGEST_STEP or any(abs(bound) > _LARGEST_BOUND for bound in known):
        return None
    edge = 10 ** max(DIGITS, *(len(str(abs(bound))) for bound in known), 0) - 1
    low, high = -edge if low is None else low, edge if high is None else high
    digits = _Digits(rules, step // unit)

    def positive(first: int, last: int) -> Expression:
        return seq(digits.natural(-(-max(first, 1) // unit), last // unit), Terminal("0" * zeros))

    return choice(
        Terminal("0") if low <= 0 <= high else NEVER,
        positive(low, high),
        seq(Terminal("-"), positive(-high, -low)),
    )


class _Digits:
    """Decimal digits of multiples of `step`: long division by rules, one for each remainder and number of digits
    left.
    """

    def __init__(self, rules: Rules, step: int) -> None:
        self.rules = rules
        self.step = step
        self._free: dict[tuple[int, int], Ref] = {}

    def natural(self, low: int, high: int) -> Expression:
        """From `low` ≥ 1 to `high`, without leading zeros."""
        if low > high:
            return NEVER
        first, last = len(str(low)), len(str(high))
        widths = range(first + (low != 10 ** (first - 1)), last + (high == 10**last - 1))
        options: list[Expression] = []
        if first == last and not widths:
            return self._between(str(low), str(high), 0)
        if first not in widths:
            options.append(self._between(str(low), "9" * first, 0))
        if widths and self.step == 1:
            options.append(seq(span("1", "9"), _digits(widths[0] - 1, widths[-1] - 1)))
        else:
            options += [self._between("1" + "0" * (width - 1), "9" * width, 0) for width in widths]
        if last not in widths:
            options.append(self._between("1" + "0" * (last - 1), str(high), 0))
        return choice(*options)

    def _between(self, low: str, high: str, remainder: int) -> Expression:
        """Digit strings of one width, from `low` to `high`, that leave no remainder after digits that left
        `remainder`.
        """
        width = len(low)
        if low == "0" * width and high == "9" * width:
            return self._any(width, remainder)
        rest = width - 1
        groups: dict[tuple[str, str, int], str] = {}
        for digit in range(int(low[0]), int(high[0]) + 1):
            below = low[1:] if digit == int(low[0]) else "0" * rest
            above = high[1:] if digit == int(high[0]) else "9" * rest
            key = below, above, (remainder * 10 + digit) % self.step
            groups[key] = groups.get(key, "") + str(digit)
        return choice(*(seq(_one_of(found), self._between(*key)) for key, found in groups.items()))

    def _any(self, width: int, remainder: int) -> Expression:
        if self.step == 1:
            return _digits(width, width)
        if width == 0:
            return EMPTY if remainder == 0 else NEVER
        if (width, remainder) not in self._free:
            groups: dict[int, str] = {}
            for digit in range(10):
                after = (remainder * 10 + digit) % self.step
                groups[after] = groups.get(after, "") + str(digit)
            ref = self._free[width, remainder] = self.rules.reserve("digits")
            options = (seq(_one_of(found), self._any(width - 1, after)) for after, found in groups.items())
            self.rules.define(ref, choice(*options))
        return self._free[width, remainder]


def _digits(low: int, high: int) -> Expression:
    if high == 0:
        return EMPTY
    return _DIGIT if (low, high) == (1, 1) else Repeat(_DIGIT, low, high)


def _one_of(digits: str) -> Expression:
    return Terminal(digits) if len(digits) == 1 else chars(digits)


# -------------------------------------------------------------------------------------------------------- decimals


@dataclass(frozen=True, slots=True)
class _Interval:
    """Numbers without a sign: 0 ≤ low ≤ high."""

    low: Decimal
    high: Decimal
    low_in: bool
    high_in: bool


def decimals(bounds: Bounds) -> Expression | None:
    """Every number inside `bounds`; without any, also with an exponent of up to two digits. None: bounds too large."""
    near = bounds.near()
    if near.open:
        whole = choice(Terminal("0"), seq(span("1", "9"), _digits(0, DIGITS - 1)))
        plain = seq(optional(Terminal("-")), whole, optional(seq(Terminal("."), _digits(1, DIGITS))))
        exponent = seq(chars("eE"), optional(chars("+-")), _digits(1, 2))
        return seq(plain, optional(exponent)) if bounds.open else plain
    if near.empty and not bounds.empty:
        return None
    bounds = near
    known = _known(bounds)
    if max(known) > _LARGEST_BOUND:
        return None
    # As many places as keep every written number apart from a bound that does not belong to the interval.
    places = max(1, DIGITS - max(len(str(int(bound))) for bound in known))
    return choice(*(seq(Terminal(sign), _magnitude(part, places)) for sign, part in _signed(bounds)))


def fractions(bounds: Bounds, step: Decimal) -> Expression | None:
    """Every multiple of `step`, a whole part of one such as 0.01, 0.25 or 0.5. None: not expressible."""
    bounds = bounds.near()
    fine = not divides(step, Decimal(1)) or step * _MOST_FRACTIONS < 1
    if fine or any(bound > _LARGEST_BOUND for bound in _known(bounds)):
        return None
    return choice(*(seq(Terminal(sign), _stepped(part, step)) for sign, part in _signed(bounds)))


def _known(bounds: Bounds) -> list[Decimal]:
    return [abs(bound) for bound in (bounds.low, bounds.high) if bound is not None]


def _signed(bounds: Bounds) -> list[tuple[str, _Interval]]:
    """The numbers from zero up, and those below it, turned round. Open ends get one of DIGITS digits."""
    edge = max(Decimal(10) ** DIGITS, *(bound * 10 for bound in _known(bounds)), Decimal(0))
    finite = bounds.meet(Bounds(-edge, edge, False, False))
    zero = Decimal(0)
    parts: list[tuple[str, _Interval]] = []
    for sign, side in ("", finite.meet(Bounds(low=zero))), ("-", finite.meet(Bounds(high=zero, high_in=False))):
        if side.low is None or side.high is None or side.empty:
            continue
        if sign:
            parts.append((sign, _Interval(-side.high, -side.low, side.high_in, side.low_in)))
        else:
            parts.append((sign, _Interval(side.low, side.high, side.low_in, side.high_in)))
    return parts


def _magnitude(part: _Interval, places: int) -> Expression:
    first, last = int(part.low), int(part.high)
    low, high = _places(part.low), _places(part.high)
    places = max(places, len(low), len(high))
    if first == last:
        return seq(Terminal(str(first)), _fraction(_Tight(low, part.low_in), _Tight(high, part.high_in), places))
    options: list[Expression] = []
    if low or not part.low_in:
        options.append(seq(Terminal(str(first)), _fraction(_Tight(low, part.low_in), None, places)))
        first += 1
    options.append(seq(_whole(first, last - 1), optional(seq(Terminal("."), _digits(1, places)))))
    options.append(seq(Terminal(str(last)), _fraction(None, _Tight(high, part.high_in), places)))
    return choice(*options)


def _stepped(part: _Interval, step: Decimal) -> Expression:
    """For each fraction, the whole numbers it may follow; fractions that may follow the same ones share a branch."""
    groups: dict[tuple[int, int], list[Expression]] = {}
    for number in range(int(1 / step)):
        fraction = number * step
        inside = Bounds(part.low - fraction, part.high - fraction, part.low_in, part.high_in)
        first, last = inside.meet(Bounds(low=Decimal(0))).integers()
        if first is None or last is None or first > last:
            continue
        digits, width = _places(fraction), len(_places(step))
        spelt = {digits + "0" * zeros for zeros in range(width - len(digits) + 1)}
        groups.setdefault((first, last), []).extend(Terminal(f".{text}" if text else "") for text in sorted(spelt))
    return choice(*(seq(_whole(*ends), choice(*options)) for ends, options in groups.items()))


def _whole(low: int, high: int) -> Expression:
    digits = _Digits(Rules(), 1)
    return choice(Terminal("0") if low == 0 <= high else NEVER, digits.natural(max(low, 1), high))


def _places(number: Decimal) -> str:
    """The digits after the point, without zeros at the end."""
    return f"{number:f}".partition(".")[2].rstrip("0")


@dataclass(frozen=True, slots=True)
class _Tight:
    """A bound that the digits so far equal: those of it still to come; `inside`: the bound itself is allowed."""

    digits: str
    inside: bool

    @property
    def next(self) -> int:
        return int(self.digits[0]) if self.digits else 0

    @property
    def after(self) -> _Tight:
        return _Tight(self.digits[1:], self.inside)


def _fraction(low: _Tight | None, high: _Tight | None, places: int) -> Expression:
    """Nothing, or a point and at most `places` digits, between the two bounds (None: no longer bounded)."""
    more = _more_digits(low, high, places)
    with_point = seq(Terminal("."), more)
    return choice(EMPTY, with_point) if _may_end(low, high) else with_point


def _may_end(low: _Tight | None, high: _Tight | None) -> bool:
    enough = low is None or (not low.digits and low.inside)
    return enough and (high is None or bool(high.digits) or high.inside)


def _more_digits(low: _Tight | None, high: _Tight | None, places: int) -> Expression:
    """One digit or more."""
    if low is not None and not low.digits and low.inside:
        low = None
    if low is None and high is None:
        return _digits(1, places) if places else NEVER
    if places == 0:
        return NEVER
    groups: dict[tuple[_Tight | None, _Tight | None], str] = {}
    for digit in range(low.next if low else 0, (high.next if high else 9) + 1):
        below = low.after if low and digit == low.next else None
        above = high.after if high and digit == high.next else None
        groups[below, above] = groups.get((below, above), "") + str(digit)
    options: list[Expression] = []
    for (below, above), found in groups.items():
        more = _more_digits(below, above, places - 1)
        options.append(seq(_one_of(found), optional(more) if _may_end(below, above) else more))
    return choice(*options)
