"""Phrases that deny, support, doubt or conclude a name: those of plain English, and what a field has beside them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StatementWords:
    """What a field's texts deny, support and doubt with, beside the plain English of this module.

    Attributes:
        denials: Phrases before a name that deny it.
        not_denials: Phrases that begin like a denial and are none: ``no change in``.
        denied_after: Phrases behind a name that do so: ``resolved``.
        hedges: Phrases before a name that leave it open.
        hedged_after: Phrases behind a name that do so: ``cannot be excluded``.
        asides: Phrases before a name that speak of another matter.
        supports: Phrases before a name that speak for it.
        conclusions: Phrases before a name that conclude it.
    """

    denials: tuple[str, ...] = ()
    not_denials: tuple[str, ...] = ()
    denied_after: tuple[str, ...] = ()
    hedges: tuple[str, ...] = ()
    hedged_after: tuple[str, ...] = ()
    asides: tuple[str, ...] = ()
    supports: tuple[str, ...] = ()
    conclusions: tuple[str, ...] = ()


ENGLISH = StatementWords()

DENIALS = (
    "no", "not", "nothing", "without", "never", "neither", "nor", "cannot", "absence of", "lack of", "lacks", "lacking",
    "free of", "free from", "negative for", "rule out", "rules out", "ruled out", "ruling out", "r o", "exclude",
    "excludes", "excluded", "excluding", "against", "rather than", "instead of", "other than", "unlike", "unlikely",
    "less likely", "least likely", "except", "fails to", "denies",
)  # fmt: skip
NO_DENIALS = ("not only", "not just", "no doubt", "without doubt", "without any doubt", "without a doubt")
ASIDES = (
    "history of", "previous", "prior", "post", "site of", "arising in", "arising from", "arising within", "arising on",
    "developing in", "developing from", "adjacent to", "next to", "beside", "near", "background of", "distinguish from",
    "distinguished from", "differentiate from", "differentiated from", "differs from", "different from", "resembling",
    "resembles", "resemble", "mimics", "mimicking", "mimic", "simulating", "simulates", "reminiscent of", "similar to",
    "pseudo", "non",
)  # fmt: skip
CONCLUSIONS = (
    "most likely", "most probably", "most probable", "most likely diagnosis", "most consistent with",
    "most compatible with", "most suggestive of", "highly suggestive of", "strongly suggestive of",
    "strongly suggests", "strongly suggest", "highly likely", "very likely", "diagnosis", "diagnosis is",
    "diagnosis of", "final diagnosis", "diagnosed as", "diagnosed with", "dx", "diagnostic of", "pathognomonic of",
    "pathognomonic for", "confirmed as", "proven", "impression", "conclusion", "assessment", "classified as",
)  # fmt: skip
SUPPORTS = (
    "consistent with", "compatible with", "in keeping with", "in line with", "suggestive of", "suggests", "suggest",
    "suggesting", "indicative of", "indicates", "indicating", "typical of", "typical for", "characteristic of",
    "characteristic for", "likely", "probably", "probable", "presumably", "presumed", "suspicious for",
    "suspicious of", "suspected", "suspicion of", "concerning for", "favours", "favors", "favouring", "favoring",
    "findings of", "signs of", "features of", "evidence of", "looks like", "look like", "appears to be", "seems to be",
    "represents", "representing",
)  # fmt: skip
HEDGES = (
    "possible", "possibly", "may be", "might be", "could be", "may represent", "could represent", "perhaps", "maybe",
    "differential", "differentials", "differential diagnosis", "differential diagnoses", "ddx", "consider",
)  # fmt: skip
CONTRASTS = ("but", "however", "although", "though", "whereas", "while", "yet")
