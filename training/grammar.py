"""Sentences of our own: small talk, questions, numbers, names, times, and rare words in plain frames.

A sentence has two forms: ``written`` is what a user would type (``at 3:30``), ``spoken`` is what a teacher reads
aloud (``at three thirty``), so that the model and not the teacher's own number rules decides how digits sound.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_THINGS = """coffee tea water bread house garden window door table book letter phone computer camera car train bus bike
boat ticket map key jacket shirt bag umbrella dog cat bird horse tree flower river mountain beach forest city village
street bridge market shop bank hospital school office kitchen bedroom movie song story picture game project meeting
report question answer problem idea plan job team party birthday wedding holiday dinner lunch breakfast sandwich soup
salad cake apple orange pizza guitar piano storm doctor teacher student engineer neighbor friend brother sister mother
father daughter uncle cousin manager driver artist writer lawyer nurse price gift box paper pencil program network
message email website password battery engine machine robot planet star island museum library theater restaurant hotel
airport station corner number address lesson language exercise contract budget schedule recipe blanket mirror clock
lamp chair server model sentence voice microphone speaker headset recording file folder screen keyboard sound""".split()
_QUALITIES = """new old big small long short good bad great nice easy hard simple strange quiet loud warm cold fresh clean
dirty happy sad angry tired hungry busy free early late fast slow cheap expensive important interesting boring beautiful
wonderful terrible perfect special different difficult dangerous safe serious funny clever famous local huge tiny heavy
light bright dark red blue green yellow white black wooden empty full broken useful popular modern ancient gentle lucky
honest brave lovely pretty smooth sharp careful patient curious comfortable""".split()
_ACTIONS = """find buy sell fix clean open close paint move carry bring take send watch read write share borrow return
check change choose finish start remember forget describe explain build cook order prepare visit leave keep use test
study learn show hide lose save plan discuss try need want like love enjoy miss prefer understand recommend improve
replace deliver measure print record hear follow answer change""".split()
_PLACES = """at home|in the city|near the station|by the river|at the office|in the park|on the table|behind the house
next to the bank|at school|in the kitchen|across the street|in the mountains|at the airport|under the bridge
in the garden|around the corner|at the market|on the second floor|in the car|at the museum|downtown|upstairs|outside
in the next room|over there|in the library|on the train|at the hotel""".replace("\n", "|").split("|")
_TIMES = """today|tomorrow|yesterday|tonight|this morning|this afternoon|this evening|next week|last week|on Monday
on Tuesday|on Wednesday|on Thursday|on Friday|on Saturday|on Sunday|right now|in an hour|after lunch|before dinner
every day|soon|later|next month|last year|at noon|at midnight|in the spring|this summer|all the time|once a week
in January|in February|in March|in April|in June|in July|in August|in September|in October|in November|in December
for a while|a moment ago|by the end of the day""".replace("\n", "|").split("|")
_NAMES = """Anna Tom Maria Peter Lucy David Sarah John Emma Jack Laura Mike Julia Alex Nina Robert Kate Daniel Alice Ben
Sam George Helen Paul Oliver Sophie Martin Clara Henry Rachel Simon Victor Ellen Frank Grace Thomas Emily William Susan
Andrew Hannah Joseph Rebecca Kevin Linda Charles Diana Edward Olivia Philip""".split()
_FEELINGS = """fine|great|all right|a bit tired|really happy|not sure|so glad|a little worried|ready|very sorry|surprised
quite busy|hungry|excited|confused|pretty sure|too late|almost done|still here|on my way""".replace("\n", "|").split("|")
_OPENERS = """Well,|Oh,|Yes,|No,|Sure,|Okay,|Really?|Hmm,|Actually,|Honestly,|I see.|Of course.|Right,|Great!|Sorry,
Thanks.|Wow,|Listen,|You know,|Exactly.|Hi!|Hello!|Good morning.|Please,|Not really.|I think so.|Good question.
That makes sense.|No problem.|Absolutely.|Hey,|So,|And|But|Maybe.|Wait,""".replace("\n", "|").split("|")

_FRAMES = """Did you {v} the {a} {n} {t}?|I {v} the {n} {l} {t}.|I think the {n} is too {a}.|The {n} {l} is really {a}.
Why don't we {v} the {n} {t}?|Can you {v} my {n}, please?|Where did {m} put the {a} {n}?|{m} wants to {v} the {n} {t}.
I have never seen such a {a} {n}.|What do you think about the {n}?|How many {n}s do we need {t}?|There are {u} {n}s {l}.
That {n} looks {a} to me.|Let's {v} the {n} {t}.|I don't know how to {v} the {n}.|{m} and {m} are {l} {t}.
It was a {a} {n}, but the {n} was {a}.|We should {v} the {n} before we {v} the {n}.|Are you {f}?
My {n} is {a}, and so is my {n}.|I will {v} it {t}, I promise.|Have you ever tried to {v} a {n}?
The {a} {n} costs {d} dollars.|Is there a {n} {l}?|Do you {v} the {n} or the {n}?|{m} said the {n} was {a}.
It takes {u} minutes to {v} the {n}.|I would like to {v} a {a} {n}.|Please don't {v} the {n} {t}.
What happened to the {n} {l}?|Who will {v} the {n} {t}?|I'm sorry about the {n}.|Thank you for the {a} {n}.
That's a {a} question.|You're right, the {n} was {a}.|I'm going to {v} the {n} with {m}.|They didn't {v} the {n} {t}.
She couldn't {v} her {n} {l}.|He has {u} {n}s and one {a} {n}.|When you {v} the {n}, call {m}.
If the {n} is {a}, we can {v} it {t}.|Nobody wants a {a} {n}.|Everyone was {a} {t}.|My {n} told me to {v} the {n}.
Could we meet {l} {t}?|The {n} starts {t}.|I met {m} {l} {t}.|See you {t}.|It's {a} {l} {t}.|I've been {l} for {u} days.
How are you {t}?|I'm {f}, thank you.|I'm {f}.|What time does the {n} start?|It starts at {c}.|The {n} leaves at {c}.
Can you be there at {c}?|My number is {p}.|The room number is {u}.|{m} is {u} years old.|I was born in {y}.
We moved here in {y}.|The meeting is on the {o} of June.|Turn left at the {o} {n}.|It's {u} degrees {l}.
About {u} percent of the {n}s are {a}.|That will be {d} dollars and {u} cents.|We need {u} more.|Is that {m}?
This is {m} speaking.|My name is {m}.|Nice to meet you, {m}.|Do you know {m}?|Hello {m}, how are you?
Who is {m}?|Which {n} do you {v}?|Whose {n} is this?|Isn't it {a}?|You {v} it, don't you?|When will the {n} be {a}?
Why is the {n} so {a}?|Is it {a} or {a}?|Would you like some {n}?|Where are you?|Where is the {n}?|Are we {f}?
What did {m} say about the {n}?|Can we talk about the {n}?|I can hear you.|I didn't hear the {n}.|Tell me more.
How long does it take to {v} a {n}?|How much is the {a} {n}?|What a {a} {n}!|I can't believe it.|Let me think about it.
That sounds {a}.|I have no idea.|It depends on the {n}.|I haven't decided yet.|What would you {v}?|I'm not so sure.
Let me {v} that {n} for you.|The first {n} was {a}, the second one is {a}.|{m}, can you {v} the {n}?
I heard that {m} has a {a} {n}.|We could {v} it together.|The {n} and the {n} are both {a}.|Take care, {m}.
Have a {a} day.|Good night, {m}.|I'll be there in {u} minutes.|You should {v} a {n} {t}.|It's the {o} time this week.
""".replace("\n", "|").strip("|").split("|")

_WORD_FRAMES = """The word is {w}.|{w}, {w} and {w}.|I read about {w} and {w}.|Do you know what {w} means?
She said {w}, not {w}.|Is it {w} or {w}?|We talked about {w} {t}.|The {n} was {w}, {m} said.|What is {w}?
How do you say {w}?|First {w}, then {w}, and finally {w}.|My {n} likes {w}.|There is {w} in the {w}.|No {w} without {w}.
It sounds like {w} to me.|{m} wrote {w} on the {n}.|Why {w}?|The {w} of the {w} is {a}.""".replace("\n", "|").split("|")

_ONES = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
eighteen nineteen""".split()
_TENS = "zero ten twenty thirty forty fifty sixty seventy eighty ninety".split()
_ORDINALS = {
    "one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth",
    "twelve": "twelfth",
}  # fmt: skip
_SLOT = re.compile(r"\{(\w)\}")
_KEEPS_CAPITAL = re.compile(rf"(I|I'm|I've|I'll|{'|'.join(_NAMES)})\b")


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence as typed and as read aloud."""

    written: str
    spoken: str


def say_number(value: int) -> str:
    """0 to 999,999 in words, as in American speech: ``say_number(342) == "three hundred forty two"``."""
    if value < 20:
        return _ONES[value]
    if value < 100:
        tens, rest = divmod(value, 10)
        return _TENS[tens] + (f" {_ONES[rest]}" if rest else "")
    size, name = (100, "hundred") if value < 1000 else (1000, "thousand")
    head, rest = divmod(value, size)
    return f"{say_number(head)} {name}" + (f" {say_number(rest)}" if rest else "")


def say_ordinal(value: int) -> str:
    """1 to 99 as an ordinal: ``say_ordinal(21) == "twenty first"``."""
    *head, last = say_number(value).split()
    if last.endswith("y"):
        ordinal = last[:-1] + "ieth"
    else:
        ordinal = _ORDINALS.get(last, last + "th")
    return " ".join([*head, ordinal])


def say_year(value: int) -> str:
    """1100 to 2099 as years are read: ``say_year(1987) == "nineteen eighty seven"``."""
    century, rest = divmod(value, 100)
    if 2000 <= value < 2010:
        return "two thousand" + (f" {_ONES[rest]}" if rest else "")
    if rest == 0:
        return f"{say_number(century)} hundred"
    return f"{say_number(century)} {'oh ' if rest < 10 else ''}{say_number(rest)}"


def say_time(hour: int, minute: int) -> str:
    """A time of day: ``say_time(3, 5) == "three oh five"``."""
    if minute == 0:
        return f"{say_number(hour)} o'clock"
    return f"{say_number(hour)} {'oh ' if minute < 10 else ''}{say_number(minute)}"


def make_sentence(rng: random.Random, rare_words: Sequence[str] = ()) -> Sentence:
    """A random sentence; with ``rare_words`` it is a plain frame around some of them."""
    frame = rng.choice(_WORD_FRAMES if rare_words else _FRAMES)
    written, spoken = _fill(frame, rng, rare_words)
    if rng.random() < 0.25:
        opener = rng.choice(_OPENERS)
        written, spoken = _join(opener, written), _join(opener, spoken)
    return Sentence(_tidy(written), _tidy(spoken))


def _fill(frame: str, rng: random.Random, rare_words: Sequence[str]) -> tuple[str, str]:
    written, spoken, end = "", "", 0
    for slot in _SLOT.finditer(frame):
        kind = slot[1]
        pair = (word := rng.choice(rare_words), word) if kind == "w" else _SLOTS[kind](rng)
        written += frame[end : slot.start()] + pair[0]
        spoken += frame[end : slot.start()] + pair[1]
        end = slot.end()
    return written + frame[end:], spoken + frame[end:]


def _word(words: Sequence[str]) -> Callable[[random.Random], tuple[str, str]]:
    def pick(rng: random.Random) -> tuple[str, str]:
        word = rng.choice(words)
        return word, word

    return pick


def _number(low: int, high: int) -> Callable[[random.Random], tuple[str, str]]:
    def pick(rng: random.Random) -> tuple[str, str]:
        value = rng.randint(low, high)
        spoken = say_number(value)
        return (str(value) if rng.random() < 0.6 else spoken), spoken

    return pick


def _clock(rng: random.Random) -> tuple[str, str]:
    hour, minute = rng.randint(1, 12), rng.choice((0, 5, 10, 15, 20, 30, 40, 45, 50))
    return f"{hour}:{minute:02}", say_time(hour, minute)


def _year(rng: random.Random) -> tuple[str, str]:
    value = rng.randint(1900, 2030)
    return str(value), say_year(value)


def _ordinal(rng: random.Random) -> tuple[str, str]:
    value = rng.randint(1, 30)
    spoken = say_ordinal(value)
    suffix = "th" if 11 <= value <= 13 else {1: "st", 2: "nd", 3: "rd"}.get(value % 10, "th")
    return (f"{value}{suffix}" if rng.random() < 0.4 else spoken), spoken


def _phone(rng: random.Random) -> tuple[str, str]:
    digits = [rng.randint(0, 9) for _ in range(rng.randint(3, 5))]
    return " ".join(map(str, digits)), " ".join(_ONES[d] for d in digits)


_SLOTS: dict[str, Callable[[random.Random], tuple[str, str]]] = {
    "n": _word(_THINGS), "a": _word(_QUALITIES), "v": _word(_ACTIONS), "l": _word(_PLACES), "t": _word(_TIMES),
    "m": _word(_NAMES), "f": _word(_FEELINGS), "u": _number(2, 99), "d": _number(2, 900), "c": _clock, "y": _year,
    "o": _ordinal, "p": _phone,
}  # fmt: skip


def _join(opener: str, sentence: str) -> str:
    if opener[-1] in ".!?" or _KEEPS_CAPITAL.match(sentence):
        return f"{opener} {sentence}"
    return f"{opener} {sentence[0].lower()}{sentence[1:]}"


def _tidy(sentence: str) -> str:
    with_articles = re.sub(r"\b([Aa]) (?=[aeiouAEIOU])", r"\1n ", sentence)
    return with_articles[0].upper() + with_articles[1:]
