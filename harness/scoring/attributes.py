"""Does a text about a product name a material, a colour or a seal that the product's facts do not?"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

from harness.errors import StatsError
from harness.scoring.counts import Cells, as_counts
from harness.scoring.item import Item, Score

VOCABULARY: Mapping[str, str] = MappingProxyType({
    "material": """wood=wooden,timber; oak; beech; walnut wood; pine wood=pinewood; bamboo; teak; cork; metal=metallic;
        steel; stainless steel; iron=cast iron; aluminium=aluminum; copper; brass; bronze; silver plate=silver-plated;
        gold plate=gold-plated; plastic; acrylic; silicone; rubber; latex; glass; crystal glass; ceramic=ceramics;
        porcelain; stoneware; earthenware; marble; granite; stone=stones; concrete; leather; suede; vegan leather;
        cotton; linen; wool=woollen,woolen; merino=merino wool; cashmere; silk=silken; satin; velvet; denim; felt;
        polyester; nylon; viscose; elastane=spandex; fleece; down=goose down,duck down; bone china; rattan; wicker;
        jute; hemp; paper; cardboard; carbon fibre=carbon fiber; titanium""",
    "colour": """black; white; grey=gray,greys; silver=silvery; red=crimson,scarlet; pink=rosy; blue=navy,azure;
        turquoise=teal; green=emerald,olive green; yellow; orange=tangerine; brown=chestnut;
        beige=sand-coloured; purple=violet; gold=golden; cream-coloured=cream coloured; ivory;
        transparent=see-through; multicoloured=multicolored,rainbow""",
    "seal": """organic=organically grown; vegan; gluten-free=gluten free; fair trade=fairtrade; recyclable; recycled;
        biodegradable; compostable; waterproof; water-resistant=water resistant; fireproof=flame retardant; non-toxic;
        bpa-free=bpa free; hypoallergenic; dermatologically tested; dishwasher safe=dishwasher-safe; machine washable;
        hand-made=handmade,handcrafted,hand-crafted; child-safe=child safe; certified=certification; patented;
        award-winning=award winning; rechargeable; wireless=cordless; foldable=folding; stackable""",
})  # fmt: skip
"""By kind, what a product can be said to be made of, look like or hold; other spellings after the equals sign."""


def attributes(item: Item) -> Score:
    """The share of the text's materials, colours and seals that the facts name too; 1 where it names none.

    The facts are context and input. Settings: `kinds` (all of `material`, `colour`, `seal`), `extra`, further words
    to look for, and `allow`, words that need no fact. Counts by kind: named by the facts as true, invented as false
    positives.

    Error classes: `invented_attribute`, `no_answer`. It knows the words of its lists and no others, and no figures
    of speech: "green" for a clear conscience counts as a colour.

    Raises:
        StatsError: `kinds` names none of these.
    """
    if not (item.answer or "").strip():
        return Score(0.0, error_class="no_answer")
    kinds = _listed(item, "kinds") or tuple(VOCABULARY)
    wanted = {
        **_words_of(kinds),
        **{word.casefold(): ("extra", word.casefold()) for word in _listed(item, "extra")},
    }
    allowed = {word.casefold() for word in _listed(item, "allow")}
    facts = set(_named(f"{item.context}\n{item.input}", wanted))
    said = [one for one in _named(item.answer or "", wanted) if one[1] not in allowed]
    cells = {
        kind: Cells(sum(one in facts for one in of_kind), sum(one not in facts for one in of_kind), 0)
        for kind in dict.fromkeys(kind for kind, _ in said)
        if (of_kind := [one for one in said if one[0] == kind])
    }
    wrong = [name for kind, name in said if (kind, name) not in facts]
    value = (len(said) - len(wrong)) / len(said) if said else 1.0
    return Score(value, as_counts(cells), "invented_attribute" if wrong else None, ", ".join(wrong[:10]))


def _named(text: str, wanted: Mapping[str, tuple[str, str]]) -> list[tuple[str, str]]:
    """Kind and name of each attribute in the text, each once; of "stainless steel", not "steel" too."""
    found = _pattern(tuple(wanted)).finditer(" ".join(text.casefold().replace("‑", "-").split()))
    return list(dict.fromkeys(wanted[match.group()] for match in found))


@lru_cache(maxsize=64)
def _pattern(words: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(words, key=len, reverse=True)
    return re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, longest_first))})(?![\w-])")


@lru_cache(maxsize=16)
def _words_of(kinds: tuple[str, ...]) -> dict[str, tuple[str, str]]:
    """Every spelling, with the kind and the name that it is one of."""
    unknown = [kind for kind in kinds if kind not in VOCABULARY]
    if unknown:
        raise StatsError(
            f"scorer 'attributes' knows no kind {unknown[0]!r}", hint=f"there are {', '.join(VOCABULARY)}"
        )
    found: dict[str, tuple[str, str]] = {}
    for kind in kinds:
        for entry in VOCABULARY[kind].split(";"):
            name, _, others = (" ".join(entry.split())).partition("=")
            for spelling in (name, *filter(None, others.split(","))):
                found[spelling.strip()] = (kind, name)
    return found


def _listed(item: Item, key: str) -> tuple[str, ...]:
    value = item.settings.get(key, ())
    return (value,) if isinstance(value, str) else tuple(map(str, value))
