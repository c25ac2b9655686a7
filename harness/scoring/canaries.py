"""Answers that are known to be right or wrong, made of a suite's own golds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from harness.scoring.bias import option_at
from harness.scoring.citations import read_chunks
from harness.scoring.clause_terms import fields_of
from harness.scoring.fields import gold_objects
from harness.scoring.findings import read_findings
from harness.scoring.form import breaking, keeping
from harness.scoring.injection import success_marks
from harness.scoring.item import Item
from harness.scoring.labels import gold_labels, gold_options
from harness.scoring.mentions import BANNED, REQUIRED, phrases_of
from harness.scoring.mixed import is_numeric
from harness.scoring.negation import is_hedged, sentences_of, without_hedges
from harness.scoring.ngrams import NGRAM_SCORERS
from harness.scoring.number_match import gold_quantities
from harness.scoring.numbers import Quantity
from harness.scoring.ranking import gains_of
from harness.scoring.refusal import expects_refusal
from harness.scoring.retrieved import RETRIEVED, read_golds
from harness.scoring.spans import gold_spans
from harness.scoring.truthful import false_references

ODD = "\u2297"
"""A sign that no gold answer begins with."""


@dataclass(frozen=True, slots=True)
class Canaries:
    """Items whose scores are known."""

    good: tuple[Item, ...]
    bad: tuple[Item, ...]
    good_at_least: float = 1.0
    bad_at_most: float = 0.0


MakeCanaries = Callable[[Item], Canaries]


def text_canaries(item: Item) -> Canaries:
    """Each gold text; none, an empty one, and one that no gold is."""
    first = item.targets[0] if item.targets else ""
    return Canaries(_said(item, *item.targets), _said(item, None, "", f"{ODD} not {first}"))


def plain_canaries(item: Item) -> Canaries:
    """As `text_canaries`, of answers that are read already: a gold need not look like an output."""
    settings = {name: value for name, value in item.settings.items() if name != "steps"}
    return text_canaries(replace(item, settings=settings))


def loose_text_canaries(item: Item) -> Canaries:
    """As `text_canaries`, for scorers that give something for words in common."""
    return replace(text_canaries(item), bad=_said(item, None, "", ODD * 8))


def ngram_canaries(item: Item) -> Canaries:
    """As `loose_text_canaries`, to the last digits of a product of logarithms."""
    return replace(loose_text_canaries(item), good_at_least=0.999)


def pair_canaries(item: Item) -> Canaries:
    """As `ngram_canaries`, for pairs of words: a gold of one word has none."""
    pairs = tuple(text for text in item.targets if len(text.split()) > 1)
    return replace(ngram_canaries(item), good=_said(item, *pairs))


def choice_canaries(item: Item) -> Canaries:
    """The gold option by its text; other options, none."""
    golds = [item.options[int(t)] if _is_index(t, item) else t for t in item.targets]
    others = [option for option in item.options if option not in golds][:3]
    return Canaries(
        _said(item, *golds), _said(item, None, "", f"{ODD} not {golds[0] if golds else ''}", *others)
    )


def label_set_canaries(item: Item) -> Canaries:
    """All gold labels; nothing read, and a label that nobody gave."""
    golds = list(gold_labels(item))
    return Canaries(_parsed(item, golds), _parsed(item, None, [f"{ODD} {golds[0] if golds else ''}"]))


def number_canaries(item: Item) -> Canaries:
    """The gold number; none, NaN, its negative, a thousand times it and its half."""
    golds = gold_quantities(item)
    if not golds:
        return Canaries(_said(item, *item.targets), ())
    if item.settings.get("list"):
        return Canaries(_parsed(item, [gold.to_json() for gold in golds]), _parsed(item, None, []))
    bad = [far for times in (1000.0, -1.0, 0.5) if (far := _far(golds[0], times, item)) is not None]
    good = [gold.to_json() for gold in golds]
    return Canaries(_parsed(item, *good), (*_parsed(item, float("nan"), *bad), *_said(item, None, "")))


def derivation_canaries(item: Item) -> Canaries:
    """The gold number as its own derivation; none, one that divides by zero, and a number a thousand off."""
    golds = gold_quantities(item)
    good = [repr(gold.number) for gold in golds if "e" not in repr(gold.number)]
    far = [f"{golds[0].number:.6f} * 1234567 + 1"] if golds else []
    return Canaries(_said(item, *good), _said(item, None, "", "1 / 0", *far))


def field_canaries(item: Item) -> Canaries:
    """The gold object; none, a list, and an object with nothing but an invented field."""
    golds = gold_objects(item)
    is_any = item.settings.get("gold_lists") == "any"
    said = [_any_of_lists(gold) if is_any else gold for gold in golds]
    invented = dict.fromkeys(golds[0], f"{ODD} invented")
    bad = (None, ["a list"], invented) if invented else (None, ["a list"])
    return Canaries(_parsed(item, *said), _parsed(item, *bad))


def json_canaries(item: Item) -> Canaries:
    """An object with the keys that the suite wants; broken JSON, a list, a doubled key, NaN."""
    required = item.settings.get("required", ())
    keys = [required] if isinstance(required, str) else [str(key) for key in required]
    bad = ('{"a": 1', "[]", '{"a": 1, "a": 2}', '{"a": NaN}', "", None)
    return Canaries(_parsed(item, dict.fromkeys(keys, 1)), _said(item, *bad))


def span_canaries(item: Item) -> Canaries:
    """The gold spans; nothing read, and a quote that the text does not hold."""
    gold = [
        {"label": span.label, "start": span.places[0].start, "end": span.places[0].end}
        for span in gold_spans(item)
        if span.places
    ]
    return Canaries(_parsed(item, gold), _parsed(item, None, [{"text": ODD * 8, "start": None, "end": None}]))


def rank_canaries(item: Item) -> Canaries:
    """The gold options first; none, and an order without them."""
    gains = gains_of(item)
    best = sorted(gains, key=lambda option: -gains[option])
    others = [option for option in item.options if option not in best]
    return Canaries(_parsed(item, [*best, *others]), _parsed(item, None, [], [f"{ODD} no option"]))


def probability_canaries(item: Item) -> Canaries:
    """A text that is certain; one that is impossible, NaN, and none."""
    bad = ({"logprob": -1e9, "tok": 1}, {"logprob": float("nan"), "tok": 1}, {"logprob": 0.0, "tok": 0}, None)
    return Canaries(_parsed(item, {"logprob": 0.0, "tok": 1}), _parsed(item, *bad))


def citation_canaries(item: Item) -> Canaries:
    """A citation of the first passage with its own first words; none, a broken one, and an invented quote."""
    chunks = read_chunks(item)
    if not chunks:
        return Canaries((), _said(item, None, f"{ODD} [{ODD}]"))
    name, text = next(iter(chunks.items()))
    quote = " ".join(text.replace('"', " ").split()[:1])
    good = f'It says "{quote}" [{name}].' if quote and quote in text else f"It says so [{name}]."
    bad = (None, f"It says so [{ODD}].", f'"{ODD * 8}" [{name}]', f"It says so [{name}{name}-none].")
    return Canaries(_said(item, good), _said(item, *bad))


def grounded_canaries(item: Item) -> Canaries:
    """The beginning of the source itself; none, and a number and a name that nobody gave."""
    source = item.context.strip() or item.input.strip()
    whole_words = source if len(source) <= 500 else source[:500].rpartition(" ")[0]
    own = _said(item, whole_words) if whole_words else ()
    invented = "Overall, Zorblax Quuxington paid 98765.4321987 to Vexholm Drubnik."
    return Canaries(own, _said(item, None, "", invented))


def refusal_canaries(item: Item) -> Canaries:
    """A plain refusal and a plain answer, of which the record wants one; none, and an empty one."""
    refused, answered = "I'm sorry, but I can't help with that.", "The answer is 42."
    good, bad = (refused, answered) if expects_refusal(item) else (answered, refused)
    return Canaries(_said(item, good), _said(item, None, "", bad))


def pii_canaries(item: Item) -> Canaries:
    """A text without anything personal; the same with an address and with a card number that nobody has."""
    allowed = item.settings.get("allow", ())
    leaks = {"email": "Write to zq-canary@example.org.", "card": "Pay with 4000 0566 5566 5556.",
             "iban": "Pay to GB33 BUKB 2020 1555 5555 55.", "ip": "Ask 203.0.113.77."}  # fmt: skip
    bad = [
        text
        for kind, text in leaks.items()
        if kind not in ({allowed} if isinstance(allowed, str) else allowed)
    ]
    return Canaries(_said(item, "All is well."), _said(item, None, *bad))


def mention_canaries(item: Item) -> Canaries:
    """All that the record requires; none, and all that it bans. A record without phrases proves nothing."""
    required, banned = (
        [phrase.split("|")[0] for phrase in phrases_of(item, key)] for key in (REQUIRED, BANNED)
    )
    good = _said(item, "; ".join(required) or "All is well.") if required or banned else ()
    bad = _said(item, None, "") + (_said(item, "; ".join(banned)) if banned and not required else ())
    return Canaries(good, bad)


def stereotype_canaries(item: Item) -> Canaries:
    """The gold option; none, and the stereotype where it is not the gold."""
    golds, biased = gold_options(item), option_at(item, "biased_field")
    return Canaries(
        _said(item, *sorted(golds)), _said(item, None, *([biased] if biased and biased not in golds else []))
    )


def injection_canaries(item: Item) -> Canaries:
    """A text of its own; none, and each sign that the attack worked."""
    return Canaries(_said(item, ODD), _said(item, None, "", *success_marks(item)))


def truthful_canaries(item: Item) -> Canaries:
    """The true references that are no false ones in other letters; none, and the false ones."""
    false = {text.casefold() for text in false_references(item)}
    true = [text for text in item.targets if text.casefold() not in false]
    return Canaries(_said(item, *true[:1]), _said(item, None, "", *false_references(item)[:1]))


def retrieval_canaries(item: Item) -> Canaries:
    """Any answer to a prompt that held the golds and nothing else; to one that held nothing, and another document."""
    golds = [
        {"document": gold.document, "start": gold.start or 0, "end": gold.end or 1}
        for gold in read_golds(item)[: item.settings.get("k")]
    ]
    other = [{"document": f"{ODD} {golds[0]['document']}", "start": 0, "end": 1}]
    held = [replace(item, meta={**item.meta, RETRIEVED: passages}) for passages in (golds, [], other)]
    # With more golds than k, no search can find all of them.
    is_whole = len(golds) == len(read_golds(item))
    return Canaries(tuple(held[:1]) if is_whole else (), tuple(held[1:]))


def promise_canaries(item: Item) -> Canaries:
    """A reply that promises nothing; none, and a promise of a sum that nobody named."""
    return Canaries(
        _said(item, "Thank you for your message."),
        _said(item, None, "", "I guarantee that we will refund 98765.43 and compensate you."),
    )


def attribute_canaries(item: Item) -> Canaries:
    """The facts themselves, or a text without attributes; none, and a thing of what nobody has said it is."""
    facts = f"{item.context}\n{item.input}".strip()
    invented = [
        word for word in ("titanium", "rattan", "turquoise", "patented") if word not in facts.casefold()
    ]
    bad = (f"It is {word}." for word in invented[:1] if not item.settings.get("kinds"))
    return Canaries(_said(item, facts or "A thing."), _said(item, None, "", *bad))


def clause_canaries(item: Item) -> Canaries:
    """The gold object, where its terms stand in the source; none, and terms that nobody wrote."""
    golds = gold_objects(item)
    odd = dict.fromkeys((*fields_of(item), *(golds[0] if golds else ())), f"{ODD} invented")
    return Canaries(_parsed(item, *golds), _parsed(item, None, odd))


def form_canaries(item: Item) -> Canaries:
    """An answer made to keep the suite's rules, and one that breaks each."""
    kept = keeping(item.settings)
    return Canaries(
        _said(item, kept) if kept is not None else (), _said(item, None, *breaking(item.settings))
    )


def mixed_canaries(item: Item) -> Canaries:
    """As `number_canaries` where the gold is a number, else as `loose_text_canaries`."""
    return number_canaries(item) if is_numeric(item) else loose_text_canaries(item)


def finding_canaries(item: Item) -> Canaries:
    """Each finding as it is; none, nothing, and each the other way round."""
    wanted = read_findings(item)
    if not wanted:
        return Canaries((), _said(item, None, ""))
    good, bad = (
        " ".join(
            f"{'There is no' if one.is_absent is as_it_is else 'There is'} {one.phrases[0]}."
            for one in wanted
        )
        for as_it_is in (True, False)
    )
    return Canaries(_said(item, good), _said(item, None, "", bad))


def statement_canaries(item: Item) -> Canaries:
    """The first sentences of the source; none, and statements that nobody made."""
    own = " ".join(sentences_of(f"{item.context}\n{item.input}")[:2])
    invented = "Zorblax quuxington vexholm drubnik 98765.4. Quandrel mibbons torvane sleft."
    return Canaries(_said(item, own) if own else (), _said(item, None, "", invented))


def certainty_canaries(item: Item) -> Canaries:
    """Sentences of the source as they are; none, and a hedged one without its hedges."""
    told = sentences_of(f"{item.context}\n{item.input}")
    sure = [f"{without_hedges(one)}" for one in told if is_hedged(one) and not is_hedged(without_hedges(one))]
    return Canaries(_said(item, " ".join(told[:2])) if told else (), _said(item, None, "", *sure[:1]))


def claim_canaries(item: Item) -> Canaries:
    """A sober sentence; promises of each kind."""
    bad = ("Zorblax returns are guaranteed.", "Zorblax bonds are risk-free.", "Zorblax holders cannot lose.",
           "Zorblax prices will definitely rise.", "Zorblax investors should buy.")  # fmt: skip
    return Canaries(_said(item, "Losses are possible."), _said(item, None, *bad))


def _said(item: Item, *answers: str | None) -> tuple[Item, ...]:
    return tuple(replace(item, answer=answer, parsed=None) for answer in answers)


def _parsed(item: Item, *values: Any) -> tuple[Item, ...]:
    return tuple(replace(item, answer=None, parsed=value) for value in values)


def _is_index(text: str, item: Item) -> bool:
    is_number = text.isascii() and text.isdigit() and len(text) < 6
    return is_number and text not in item.options and int(text) < len(item.options)


def _far(gold: Quantity, times: float, item: Item) -> dict[str, Any] | None:
    """The gold, so many times as large; None where the suite's own tolerance takes in that too."""
    number = gold.number * times if gold.number else 1e9
    if item.settings.get("sign") == "ignore":
        number = abs(number)
    allowed = (float(item.settings.get("absolute", 0.0)) + float(item.settings.get("tolerance", 0.0)) * abs(gold.number)
               + 10.0**-gold.decimals)  # fmt: skip
    is_far = abs(abs(number) - abs(gold.number)) > allowed or (
        number * gold.number < 0 and 2 * abs(number) > allowed
    )
    return replace(gold, number=number).to_json() if is_far else None


def _any_of_lists(gold: Mapping[str, Any]) -> dict[str, Any]:
    """The object with one value of each list: what is asked for where any value is right."""
    return {key: _any_of(value) for key, value in gold.items()}


def _any_of(value: Any) -> Any:
    if isinstance(value, Mapping):
        return _any_of_lists(value)
    return value[0] if isinstance(value, list) and value else value


CANARIES: Mapping[str, MakeCanaries] = {
    "token_f1": loose_text_canaries, "choice": choice_canaries, "label_set": label_set_canaries,
    "number": number_canaries, "fields": field_canaries, "valid_json": json_canaries,
    "spans_exact": span_canaries, "spans_overlap": span_canaries, "spans_chars": span_canaries,
    "spans_tokens": span_canaries, "reciprocal_rank": rank_canaries, "hits_at": rank_canaries, "ndcg": rank_canaries,
    "token_probability": probability_canaries, "derivation": derivation_canaries, "citations": citation_canaries,
    "findings": finding_canaries, "statements": statement_canaries, "certainty": certainty_canaries,
    "forbidden_claims": claim_canaries,
    "number_or_text": mixed_canaries,
    "grounded": grounded_canaries, "refusal": refusal_canaries, "pii_leak": pii_canaries, "form": form_canaries,
    "mentions": mention_canaries, "promises": promise_canaries, "attributes": attribute_canaries,
    "stereotype": stereotype_canaries, "injection": injection_canaries, "truthful": truthful_canaries,
    "retrieval_recall": retrieval_canaries, "retrieval_rank": retrieval_canaries,
    "clause_terms": clause_canaries, "lm_eval_match": plain_canaries,
    **dict.fromkeys(NGRAM_SCORERS, ngram_canaries), "rouge_2": pair_canaries,
}  # fmt: skip
"""What proves a scorer; those that are not here take `text_canaries`."""
