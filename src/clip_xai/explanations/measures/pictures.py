"""What is asked about one picture, whatever it is, and all its maps measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from clip_xai.explanations.causes.weights import TRAINED
from clip_xai.explanations.measures.base import Measure, PhotographMaps
from clip_xai.explanations.measures.curve_rows import curve_rows
from clip_xai.xai.explainer import Explainer
from clip_xai.xai.perturbation_bank import PerturbationBank
from clip_xai.xai.target import Target

Method = tuple[str, str]  # its name, and the weights that its maps were made with
OTHERS = 2  # random texts, or captions of other pictures, beside each thing asked
Others = Sequence[tuple[Target, int]]


@dataclass(frozen=True)
class AskedThing:
    """One thing asked about a picture.

    Attributes:
        target: What kind of thing: ``diagnosis``, ``contrast``, ``similarity`` ...
        label: The very thing, for people.
        region: Where heat ought to lie, bool ``[S, S]``; None where nobody knows.
    """

    target: str
    label: str
    region: Tensor | None = None


@dataclass(frozen=True)
class AskedPicture:
    """One picture and all that is asked about it.

    Attributes:
        bank: The tower and the picture.
        group: The patient or lesion that it is of.
        about: What else its rows say of it: what results are to be told apart by.
        targets: What is explained, and for each which score of it is which thing asked.
        things: The things, by number.
        others: Other things to ask of the same picture beside a target: random texts, captions of other pictures.
    """

    bank: PerturbationBank
    group: str
    about: Mapping[str, Any]
    targets: Sequence[tuple[Target, Sequence[tuple[int, int]]]]
    things: Sequence[AskedThing]
    others: Callable[[Target], Others]


@dataclass(frozen=True)
class MeasuredPicture:
    """Values of the maps of one picture.

    Attributes:
        rows: One for each thing asked, measure, method and weights that has a value.
        left_out: Measures that are not defined, and why, a sentence each.
        curves: Insertion and deletion curves that measures have read, a row for each point.
    """

    rows: tuple[dict[str, Any], ...] = ()
    left_out: tuple[str, ...] = ()
    curves: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class MapMeasures:
    """What is measured of the maps of a picture.

    Attributes:
        every: Measures of every map.
        again: What methods are asked again for, on the trained model alone: sanity, agreement, cost.
        explainers: The methods by name.
        marks: Shares at which curves are read; none for the protocols' own.
        seed: Seed of orders, sets and noise.
    """

    every: Sequence[Measure]
    again: Sequence[Measure] = ()
    explainers: Mapping[str, Explainer] = field(default_factory=dict)
    marks: tuple[float, ...] = ()
    seed: int = 0

    def of(self, picture: AskedPicture, maps: Mapping[Method, Mapping[int, Tensor]]) -> MeasuredPicture:
        """Measure all maps of a picture. Maps at random weights are held against the trained model, as all others are.

        Args:
            picture: What was asked.
            maps: By method and weights, the map of each thing asked by its number, ``[h, w]``.
        """
        explainers = {key_of((name, TRAINED)): one for name, one in self.explainers.items()}
        rows: list[dict[str, Any]] = []
        left_out: list[str] = []
        curves: list[dict[str, Any]] = []
        for target, things in picture.targets:
            streams: dict[object, Any] = {}
            others = picture.others(target) if self.again else ()
            for row, number in things:
                own = {key_of(method): found[number] for method, found in maps.items() if number in found}
                thing = picture.things[number]
                asked = PhotographMaps(
                    picture.bank, target, row, own, picture.group, thing.region, explainers, others, self.seed,
                    self.marks, streams,
                )  # fmt: skip
                about = {"group": picture.group, "target": thing.target, "label": thing.label, **picture.about}
                for measure in (*self.every, *self.again) if own else ():
                    reason = measure.refusal(asked)
                    if reason is not None:
                        left_out.append(f"{measure.key} of the {thing.target} is not measured: {reason}.")
                        continue
                    for key, value in measure.of(asked).items():
                        name, weights = method_of(key)
                        said = {"measure": measure.key, "method": name, "weights": weights, "value": value}
                        rows.append(about | said)
                curves += curve_rows(asked, {name: about[name] for name in ("group", "target", "label")})
        return MeasuredPicture(tuple(rows), tuple(dict.fromkeys(left_out)), tuple(curves))


def key_of(method: Method) -> str:
    """Return a method with its weights as one name."""
    return "\t".join(method)


def method_of(key: str) -> Method:
    """Return the method and the weights of a name."""
    name, weights = key.split("\t")
    return name, weights
