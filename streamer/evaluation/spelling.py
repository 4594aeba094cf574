"""Numbers in words, as in American speech."""

from __future__ import annotations

import re

ONES = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
_TENS = ["zero", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SIZES = ((1_000_000, "million"), (1000, "thousand"), (100, "hundred"))
_ORDINALS = {
    "one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth",
    "twelve": "twelfth",
}  # fmt: skip
# Digits, also with commas between thousands.
_WHOLE = r"\d{1,3}(?:,\d{3})+|\d+"


def say_number(value: int) -> str:
    """0 to 999,999,999 in words: ``say_number(342) == "three hundred forty two"``."""
    if value < 20:
        return ONES[value]
    if value < 100:
        tens, rest = divmod(value, 10)
        return _TENS[tens] + (f" {ONES[rest]}" if rest else "")
    size, name = next((size, name) for size, name in _SIZES if value >= size)
    head, rest = divmod(value, size)
    return f"{say_number(head)} {name}" + (f" {say_number(rest)}" if rest else "")


def say_ordinal(value: int) -> str:
    """1 to 999,999 as an ordinal: ``say_ordinal(21) == "twenty first"``."""
    *head, last = say_number(value).split()
    ordinal = last[:-1] + "ieth" if last.endswith("y") else _ORDINALS.get(last, last + "th")
    return " ".join([*head, ordinal])


def say_year(value: int) -> str:
    """1100 to 2099 as years are read: ``say_year(1987) == "nineteen eighty seven"``."""
    century, rest = divmod(value, 100)
    if 2000 <= value < 2010:
        return "two thousand" + (f" {ONES[rest]}" if rest else "")
    if rest == 0:
        return f"{say_number(century)} hundred"
    return f"{say_number(century)} {'oh ' if rest < 10 else ''}{say_number(rest)}"


def say_time(hour: int, minute: int) -> str:
    """A time of day: ``say_time(3, 5) == "three oh five"``."""
    if minute == 0:
        return f"{say_number(hour)} o'clock"
    return f"{say_number(hour)} {'oh ' if minute < 10 else ''}{say_number(minute)}"


def say_decimal(whole: str, decimals: str) -> str:
    """A number with a point, in digits: ``say_decimal("3", "14") == "three point one four"``."""
    return f"{_say_digits(whole)} point {_say_each(decimals)}"


def spell_numbers(text: str) -> str:
    """The text with its numbers as words, all else as it was: ``"at 3:05"`` -> ``"at three oh five"``.

    Knows times, ordinals, dollars and cents, percent, decimals, commas between thousands, and years; four digits from
    1100 to 2099 are a year. More than six digits in a row are read one by one. Two digits after a point are left to be
    read as of a time of day, since recognisers write 7:15 as 7.15.
    """
    text = re.sub(r"\b(\d{1,2}):00\s+o['’]clock", r"\1 o'clock", text)
    text = re.sub(r"\b(\d{1,2}):([0-5]\d)\b", lambda m: say_time(int(m[1]), int(m[2])), text)
    text = re.sub(rf"\$({_WHOLE})(?:\.(\d+))?( (?:thousand|million|billion)\b)?", _say_dollars, text)
    text = re.sub(r"(\d)\s?%", r"\1 percent", text)
    text = re.sub(rf"({_WHOLE})\.(\d|\d{{3,}})\b", lambda m: say_decimal(m[1].replace(",", ""), m[2]), text)
    text = re.sub(r"\b\d{1,3}(?:,\d{3}){1,2}\b", lambda m: say_number(int(m[0].replace(",", ""))), text)
    text = re.sub(r"\b(\d{1,6})(?:st|nd|rd|th)\b", lambda m: say_ordinal(int(m[1])), text)
    text = re.sub(r"\b(?:1[1-9]|20)\d\d\b", lambda m: say_year(int(m[0])), text)
    return re.sub(r"\d+", lambda m: _say_digits(m[0]), text)


def _say_dollars(price: re.Match[str]) -> str:
    dollars, decimals, magnitude = price[1], price[2] or "", price[3] or ""
    if magnitude or len(decimals) > 2:
        return f"{dollars}{'.' if decimals else ''}{decimals}{magnitude} dollars"
    said = f"{dollars} dollar{'' if dollars == '1' else 's'}"
    cents = int(decimals.ljust(2, "0"))
    return f"{said} and {cents} cent{'' if cents == 1 else 's'}" if cents else said


def _say_digits(digits: str) -> str:
    return say_number(int(digits)) if len(digits) <= 6 else _say_each(digits)


def _say_each(digits: str) -> str:
    return " ".join(ONES[int(digit)] for digit in digits)
