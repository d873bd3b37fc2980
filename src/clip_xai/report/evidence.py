"""What is known of the maps of a method for one model, and which of them a page opens with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from clip_xai.report.explained import title_of
from clip_xai.text import with_bounds

UNMEASURED = (
    "How well these methods localise was not measured for this model; their order says nothing about their worth."
)


@dataclass(frozen=True)
class Measured:
    """A measure with its 95 % interval; ``low`` and ``high`` are None where there is none."""

    value: float
    low: float | None
    high: float | None

    @property
    def text(self) -> str:
        """``.82 [.70, .90]``."""
        return with_bounds(self.value, self.low, self.high)

    def above(self, other: Measured) -> bool:
        """Whether the whole interval lies above the other one."""
        return self.low is not None and other.high is not None and self.low > other.high


@dataclass(frozen=True)
class Localised:
    """How well one method ranks what masks mark above the rest (AUPRC), on the model and at random weights.

    Attributes:
        trained: On the model.
        random: The same tower at random weights; None where that was not measured.
        truth: What the masks mark: ``lesion``, ``finding``.
    """

    trained: Measured
    random: Measured | None = None
    truth: str = "finding"

    @property
    def learned(self) -> bool:
        """Whether the map finds what is marked because of what the model learned: the intervals are apart."""
        return self.random is not None and self.trained.above(self.random)

    @property
    def text(self) -> str:
        """Both values in words."""
        said = f"AUPRC of heat against masks of the {self.truth} {self.trained.text}"
        if self.random is None:
            return f"{said}, not measured at random weights"
        verdict = ""
        if self.random.above(self.trained):
            verdict = f": training made this map worse at locating the {self.truth}"
        elif not self.learned:
            told = None not in (self.trained.low, self.random.low)
            why = "the intervals overlap" if told else "there is no interval"
            verdict = f": {why}, the map may owe nothing to what the model learned"
        return f"{said}, the same method at random weights {self.random.text}{verdict}"


@dataclass(frozen=True)
class Evidence:
    """Localisation of several methods for the model of a page.

    Attributes:
        where: What it was measured on: photographs, data set, what was explained.
        methods: By the method's name.
        controls: What reaches the same without any model, such as a blob at the centre: its name -> AUPRC.
    """

    where: str
    methods: Mapping[str, Localised]
    controls: Mapping[str, Measured] = field(default_factory=dict)

    @property
    def without_model(self) -> str:
        """What maps that know no model reach, in a sentence; empty where that was not measured."""
        said = ", ".join(f"{name} {found.value:.2f}" for name, found in self.controls.items())
        return f" Without any model: {said}." if said else ""

    def of(self, method: str) -> str:
        """What is known of one method, for a reader."""
        found = self.methods.get(method)
        return "Localisation of this method was not measured for this model." if found is None else f"{found.text}."


def opening_method(methods: Sequence[str], evidence: Evidence | None, command: str) -> tuple[str | None, str]:
    """Choose the method that a page opens with, and say why: the one rule for all pages.

    Of the methods whose localisation was measured for this model and lies above their own at random weights, the one
    with the largest AUPRC. Where nothing was measured, or no method rises above random weights, the first one.

    Args:
        methods: The methods of the page, in its order.
        evidence: What was measured for its model; None where nothing was.
        command: How to measure it.

    Returns:
        The method, None where the page has none; and a sentence for the reader.
    """
    if not methods:
        return None, ""
    known = {name: evidence.methods[name] for name in methods if evidence and name in evidence.methods}
    if evidence is None or not known:
        return methods[0], (f"{UNMEASURED} Measure it: {command}")
    learned = {name: found for name, found in known.items() if found.learned}
    if not learned:
        return methods[0], (
            f"None of these methods localises above its own random-weights level for this model ({evidence.where}); "
            "their order says nothing about their worth."
        )
    best = max(learned, key=lambda name: learned[name].trained.value)
    return best, (
        f"Opens with {title_of(best)}, which localised best of the methods that rise above their own random weights: "
        f"{known[best].text} ({evidence.where}).{evidence.without_model} This is localisation: it does not show that a "
        "map is faithful to the model."
    )
