"""What all adapters share: looking up photographs, turning rows into records, reporting what is left out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from clip_xai.data.boxes import Box
from clip_xai.data.captions import CaptionFacts, compose
from clip_xai.data.lexicon import canonical_diagnosis
from clip_xai.data.record import Problem, Record, SourceTable
from clip_xai.data.shared import NOTHING, OneOfEach, SharedMapping
from clip_xai.data.sources.photograph_files import PhotographIndex
from clip_xai.data.sources.tables import Table, known
from clip_xai.data.vocabulary import Vocabulary, load_vocabulary
from clip_xai.errors import UserError
from clip_xai.text import counted, plural, printable

_TONES = {"12": (1, 2), "34": (3, 4), "56": (5, 6)}


@dataclass
class SourceReader:
    """Collects the records and problems of one source, row by row.

    Attributes:
        source: Name of the data set.
        photographs: Where its photographs are looked up.
        expected: Rows that the publisher's tables have, where they are the ones that were found.
        path: Its table, where there is one.
        compare_looks: Whether photographs that look alike may be one photograph.
        vocabulary: What its labels are read with.
    """

    source: str
    photographs: PhotographIndex
    expected: int | None = None
    path: Path | None = None
    compare_looks: bool = True
    vocabulary: Vocabulary = field(default_factory=load_vocabulary)
    records: list[Record] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    labels: dict[str, Counter[str]] = field(default_factory=dict)
    unmapped: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    _taken: dict[Path, str] = field(default_factory=dict)
    _alike: OneOfEach = field(default_factory=OneOfEach)

    def count_rows(self, table: Table) -> None:
        """Count a table's rows and report those that do not fit its header."""
        self.rows += len(table.rows) + len(table.broken)
        if table.encoding:
            doubt = f"is not UTF-8 and was read as {table.encoding}; save it as UTF-8 if letters are wrong"
            self.note(f"{table.path.name} {doubt}")
        for line, reason in table.broken:
            self.reject(f"{table.path.name} line {line}", reason)

    def reject(self, file: str, reason: str, kind: str = "row") -> None:
        """Leave a row out and say why."""
        self.problems.append(Problem(self.source, file or "a row without a name", kind, reason))

    def note(self, text: str) -> None:
        """Say something about the whole download."""
        self.notes.append(printable(text))

    def photograph(self, name: str) -> Path | None:
        """Find the photograph of a row; report and return None where it is missing or already belongs to a row."""
        if not name or "/" in name or "\\" in name or "\0" in name:
            self.reject(repr(name), "the table names no plain file name here")
            return None
        path = self.photographs.find(name)
        if path is None:
            self.reject(name, "listed in the table, not on disk", kind="missing")
        elif path in self._taken:
            self.reject(name, f"its photograph is already used by the row of {self._taken[path]}")
            return None
        else:
            self._taken[path] = name
        return path

    def diagnose(self, *labels: str) -> str | None:
        """Return the canonical name of the first of a publisher's labels that has one.

        What each label became is kept for the report; labels without a canonical name are counted, not guessed.
        """
        stated = [label for label in labels if label]
        for label in stated:
            name = canonical_diagnosis(label, self.vocabulary)
            if name is not None:
                self.labels.setdefault(label, Counter())[name] += 1
                return name
        if stated:
            self.unmapped[stated[0]] += 1
        return None

    def add(
        self,
        photograph: Path,
        facts: CaptionFacts | None,
        *,
        keys: Iterable[str],
        diagnosis: str | None,
        malignancy: str | None = None,
        fields: Mapping[str, object],
        view: str = "clinical",
        mask: Path | None = None,
        official_split: str | None = None,
        flags: Iterable[str] = (),
        labels: Mapping[str, bool | None] | None = None,
        boxes: Iterable[Box] = (),
        box_frame: tuple[int, int] | None = None,
        label_masks: Mapping[str, str] | None = None,
    ) -> Record:
        """Make a record of a row whose photograph is there.

        Args:
            photograph: Its file.
            facts: What its caption may say, or None where the source has labels alone.
            keys: What other photographs of the same patient, lesion or picture share; the first names the group.
            diagnosis: Canonical name, or None.
            malignancy: What the publisher says of a diagnosis that the vocabulary does not know.
            fields: The publisher's fields that say something.
            view: ``clinical`` or ``dermoscopic``.
            mask: Lesion mask.
            official_split: The publisher's own split.
            flags: What a reader should know of the row.
            labels: What is stated of each label.
            boxes: Boxes around findings.
            box_frame: Width and height of the picture that they were drawn on, where it may be another size.
            label_masks: Label -> run lengths of its mask.

        Returns:
            The record, which is kept.
        """
        captions = compose(facts, vocabulary=self.vocabulary) if facts else ()
        shared = tuple(map(self._alike.text, keys))
        self.records.append(
            Record(
                image=photograph,
                source=self.source,
                name=printable(photograph.name),
                group=shared[0],
                diagnosis=diagnosis,
                malignancy=self.vocabulary.malignancy(diagnosis) if diagnosis else malignancy,
                caption=captions[0] if captions else "",
                references=captions,
                mask=mask,
                official_split=official_split,
                fields=self._alike.mapping(fields),
                view=view,
                keys=shared,
                skin_types=facts.skin_types if facts else (),
                flags=tuple(flags),
                labels=self._alike.mapping(labels or {}),
                boxes=tuple(boxes),
                box_frame=box_frame,
                label_masks=SharedMapping(label_masks) if label_masks else NOTHING,
                facts=facts,
            )
        )
        return self.records[-1]

    def table(self) -> SourceTable:
        """Return everything that was read."""
        missing = sum(problem.kind == "missing" for problem in self.problems)
        if missing and self.photographs.archives:
            packed = ", ".join(sorted(self.photographs.archives)[:5])
            are = plural(len(self.photographs.archives), "is", "are")
            self.note(
                f"{counted(missing, 'photograph')} missing, and {packed} {are} still packed: unpack and call again"
            )
        twice = [path for path in self._taken if path in self.photographs.repeated]
        if twice:
            first, other = twice[0], self.photographs.repeated[twice[0]]
            self.note(
                f"{counted(len(twice), 'photograph')} with a namesake in another folder, of which the first is used: "
                f"{first.parent.name}/{first.name}, not {other.parent.name}/{other.name}"
            )
        return SourceTable(
            source=self.source,
            records=self.records,
            problems=self.problems,
            rows=self.rows,
            unmapped=dict(sorted(self.unmapped.items())),
            expected=self.expected,
            notes=self.notes,
            labels={label: dict(names) for label, names in sorted(self.labels.items())},
            path=self.path,
            compare_looks=self.compare_looks,
        )


def require_of_field(tables: Iterable[SourceTable], chosen: str, vocabulary: Vocabulary) -> None:
    """Refuse a source whose diagnoses a vocabulary does not have: nothing of it could be read or compared.

    Args:
        tables: What was read of each source.
        chosen: What the vocabulary was chosen by.
        vocabulary: The vocabulary.

    Raises:
        UserError: One is of another field.
    """
    known = {None, *vocabulary.diagnoses}
    for table in tables:
        other = next((record.diagnosis for record in table.records if record.diagnosis not in known), None)
        if other is not None:
            raise UserError(
                f"data.vocabulary={chosen} does not have the diagnosis {other!r} of {table.source}: choose the "
                "vocabulary of that source's field, or a data.root without it"
            )


def stated_fields(row: Mapping[str, str], leave_out: Iterable[str] = ()) -> dict[str, object]:
    """Return the publisher's fields of a row that say something."""
    dropped = set(leave_out)
    return {name: text for name, text in row.items() if name and known(text) and name not in dropped}


def labelled(row: Mapping[str, str], leave_out: Iterable[str] = (), names: Mapping[str, str] | None = None) -> dict:
    """Return 'Label' -> value of the fields of a row that say something, for the caption policy ``fields``.

    Args:
        row: The publisher's row.
        leave_out: Columns that are not facts of the photograph (ids, file names).
        names: Column -> label, where a plain reading of the column's name will not do.
    """
    words = {"true": "Yes", "false": "No"}
    return {
        (names or {}).get(column) or column.replace("_", " ").strip().capitalize(): words.get(
            str(text).casefold(), re.sub(r"\.0$", "", str(text))
        )
        for column, text in stated_fields(row, leave_out).items()
    }


def skin_types_of(text: str) -> tuple[int, ...]:
    """Return the Fitzpatrick types that a cell states: ``3``, ``3.0``, ``3, 4``, ``III`` or DDI's ``34``; else none."""
    plain = re.sub(r"\.0+\b", "", known(text)).strip()
    if plain in _TONES:
        return _TONES[plain]
    roman = {"i": 1, "ii": 2, "iii": 3, "iv": 4, "v": 5, "vi": 6}
    found = {int(word) if word.isdecimal() else roman.get(word, 0) for word in re.findall(r"-?\w+", plain.casefold())
             if word.isdecimal() or word in roman}  # fmt: skip
    return tuple(sorted(found)) if found and found <= set(range(1, 7)) else ()
