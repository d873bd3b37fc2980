"""What the evaluation of a classifier found, label by label."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from clip_xai.metrics.class_measures import OF_LABEL, label_metric
from clip_xai.metrics.results import MODEL, OVERALL, Score, Scored, Verdict, markdown_table
from clip_xai.metrics.shortcuts import ShortcutAudit
from clip_xai.text import counted, markdown


@dataclass(frozen=True)
class Bin:
    """One bin of the reliability diagram.

    Attributes:
        confidence: Mean probability of its answers.
        share: Share of them that is right.
        n: How many there are.
    """

    confidence: float
    share: float
    n: int


@dataclass(frozen=True)
class LabelResult:
    """One label of a classifier.

    Attributes:
        name: The label.
        positives: Photographs that show it.
        negatives: Photographs that do not.
        unknown: Photographs of which it is not known.
        patients: Groups (patients) that show it.
        above_chance: Whether its AUROC lies above .5, corrected for all labels; None without a verdict.
        roc: Points of the model's ROC curve; empty where only one kind of photograph is there.
        reliability: Bins of the model's probability of this label that hold a photograph.
    """

    name: str
    positives: int
    negatives: int
    unknown: int
    patients: int
    above_chance: bool | None
    roc: tuple[tuple[float, float], ...] = ()
    reliability: tuple[Bin, ...] = ()


@dataclass(frozen=True)
class ClassificationResult(Scored):
    """All that the evaluation of a classifier found, beyond what every task's results have.

    Scores of single labels have the keys of `clip_xai.metrics.class_measures.label_metric`, such as ``auroc/Nodule``.

    Attributes:
        labels: What is known of each label.
        multiple: Whether a photograph can have several labels at once.
        photographs: How many photographs were judged.
        unknown: How many were left out because no label of theirs is known.
        reliability: Bins of the probability of the answer; for several labels at once, of all labels together.
        confusion: Photographs of each true class (row) by answered class (column); empty for several labels at once.
        shortcuts: Audits of attributes that could give labels away.
    """

    labels: tuple[LabelResult, ...] = ()
    multiple: bool = False
    photographs: int = 0
    unknown: int = 0
    reliability: tuple[Bin, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()
    shortcuts: tuple[ShortcutAudit, ...] = ()

    def left_out(self) -> dict[str, str]:
        """Return in words how many photographs each label leaves out, by its name."""
        whole = counted(self.photographs + self.unknown, "photograph")
        found = {"all measures": f"{self.unknown} of {whole} left out: no label of theirs is known"}
        found = found if self.unknown else {}
        if not self.multiple:
            return found
        return found | {
            one.name: f"{one.unknown} of {counted(self.photographs, 'photograph')} left out: not stated or uncertain"
            for one in self.labels
            if one.unknown
        }

    def label_score(self, kind: str, name: str, system: str = MODEL) -> Score | None:
        """Return one score of one label, or None where there is none.

        Args:
            kind: ``auroc``, ``ap``, ``recall``, ``precision``, ``ece`` or ``brier``.
            name: The label.
            system: Key of the system.
        """
        return self.score(label_metric(kind, name).key, system)

    def label_table(self) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
        """Return the model's table of labels as head and rows of text."""
        kinds = [kind for kind in OF_LABEL if any(self.label_score(kind, one.name) for one in self.labels)]
        counts = ("present", "absent", "unknown", self.group_words[1])
        head = ("label", *(OF_LABEL[kind] for kind in kinds), "above .5", *counts)
        said = {True: "yes", False: "no", None: "–"}
        rows = tuple(
            (
                one.name,
                *(self.cell(label_metric(kind, one.name), MODEL, OVERALL) for kind in kinds),
                said[one.above_chance],
                *(str(count) for count in (one.positives, one.negatives, one.unknown, one.patients)),
            )
            for one in self.labels
        )
        return head, rows

    def with_shortcuts(self, *audits: ShortcutAudit) -> ClassificationResult:
        """Return a copy that also has audits of attributes, and says on top what they found."""
        found = [Verdict(text, warning) for audit in audits for text, warning in audit.sentences(self.group_words)]
        said = sorted((*self.verdicts, *found), key=lambda verdict: not verdict.warning)
        return replace(self, shortcuts=(*self.shortcuts, *audits), verdicts=tuple(said))

    def _further(self) -> dict[str, Any]:
        labels = [{key: value for key, value in asdict(one).items() if key != "roc"} for one in self.labels]
        return {
            "photographs": self.photographs,
            "unknown": self.unknown,
            "multiple": self.multiple,
            "labels": [one | {"reliability": list(one["reliability"])} for one in labels],
            "reliability": [asdict(one) for one in self.reliability],
            "confusion": [list(row) for row in self.confusion],
            "shortcuts": [audit.to_dict() for audit in self.shortcuts],
        }

    def _further_markdown(self) -> list[str]:
        head, rows = self.label_table()
        lines = ["", "## Labels", "", *markdown_table([head, *([markdown(row[0]), *row[1:]] for row in rows)])]
        for audit in self.shortcuts:
            head, rows = audit.table()
            lines += ["", f"## Shortcut: {markdown(audit.attribute)}", ""]
            lines += markdown_table([head, *([markdown(row[0]), *row[1:]] for row in rows)])
        return lines
