"""The little English that a template needs: articles, lists, sentence starts, and bags of words."""

from __future__ import annotations

import re
from collections.abc import Sequence

NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_FUNCTION = """
    a about above across after against all along also among an and another any are around as at
    be because been before behind being below beneath beside between both but by can did do
    does down during each every first for from had has have her him his i if in inside into is
    it its just last like look me more my near need no nor not of off on once onto only or
    other our out over own per should so some somebody such than that the their them then there
    these they this those through to together too toward towards under until up us want was we
    were what when where which while who whole why will with without would you your
"""
_ASKING = """
    answer asked below calmly caption captioned cards clear create draw drawn end explain
    finish follow give guide how illustrate illustrated know label labelled lesson let make
    manual never page paint panel photograph picture please poster preparing quickly right
    sentence sequence series set short show shown single slide small stage start step teach
    tell tutorial walk way wants word wordless write
"""
FUNCTION_WORDS = frozenset(_FUNCTION.split())
ASKING_WORDS = frozenset(_ASKING.split())
"""Words of asking for pictures: they say nothing about what is to be seen."""

_WORD = re.compile(r"[^\W\d_]+")
_ARTICLE = re.compile(r"\b(an?) ([\w-]+)", re.IGNORECASE)
_SENTENCE_START = re.compile(r"(?:^|(?<=[.!?] ))[a-zà-ÿ]")
_LIKE_CONSONANT = re.compile(r"(uni(?!n|m)|us[aeu]|eu|ewe|one\b|once\b|ukulele|utopia|u-)")
_LIKE_VOWEL = re.compile(r"(hour|honest|honou?r|heir)")


def article(word: str) -> str:
    """``a`` or ``an``, by the sound that ``word`` begins with.

    >>> [article(word) for word in ("otter", "unicorn", "hour", "X-ray", "16-bit", "8-bit")]
    ['an', 'a', 'an', 'an', 'a', 'an']
    """
    head = word.partition("-")[0]
    if head.isdigit():
        return "an" if head[0] == "8" or head in ("11", "18") else "a"
    if head.isupper():  # Letters are spoken by their names: an LED, a GIF.
        return "an" if head[0] in "AEFHILMNORSX" and head != "GIF" else "a"
    low = word.lower()
    if low[0] in "aeiou":
        return "a" if _LIKE_CONSONANT.match(low) else "an"
    return "an" if _LIKE_VOWEL.match(low) else "a"


def wrong_article(text: str) -> str | None:
    """The first ``a`` or ``an`` in ``text`` that does not suit the word after it, with that word.

    >>> wrong_article("an otter and a owl")
    'a owl'
    """
    for found in _ARTICLE.finditer(text):
        # "A" at the end of a list of letters or as a name is no article; entries have none such.
        if found[1].lower() != article(found[2]):
            return found[0]
    return None


def bare(text: str) -> str:
    """``text`` without the article that it begins with.

    >>> bare("an Arctic fox")
    'Arctic fox'
    """
    return re.sub(r"^(?:an?|the) ", "", text)


def listed(items: Sequence[str]) -> str:
    """Items as an enumeration.

    >>> listed(["a pear", "a fig", "an egg"])
    'a pear, a fig and an egg'
    """
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def with_capitals(text: str) -> str:
    """``text`` with a capital at the start of every sentence."""
    return _SENTENCE_START.sub(lambda found: found[0].upper(), text)


def content_words(text: str) -> list[str]:
    """The words of ``text`` that carry its content: sorted, each once, plural s taken off.

    >>> content_words("How do I peel two lemons?"), content_words("Show me how to peel a lemon.")
    (['lemon', 'peel'], ['lemon', 'peel'])
    """
    found = set()
    for word in _WORD.findall(text.lower()):
        stem = word[:-1] if len(word) > 3 and word[-1] == "s" and word[-2] != "s" else word
        if len(stem) > 1 and not {word, stem} & _DROPPED:
            found.add(stem)
    return sorted(found)


_DROPPED = FUNCTION_WORDS | ASKING_WORDS | frozenset(NUMBER_WORDS)
