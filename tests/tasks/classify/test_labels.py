"""What is classified: which classes there are, what a record states of them, what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from clip_xai.config.training_settings import ClassifyConfig
from clip_xai.data.record import Record
from clip_xai.errors import UserError
from clip_xai.tasks.classify.labels import question_of
from clip_xai.tasks.classify.training import class_weights
from tests.support.small_classes import record


def told(**values: Any) -> ClassifyConfig:
    return ClassifyConfig(name="classify", run_name="x", **values)


def shows(*labels: dict[str, bool | None]) -> list[Record]:
    return [record(f"{number}.png", labels=one) for number, one in enumerate(labels)]


EXCLUSIVE = shows(*({name: name == shown for name in "abc"} for shown in "aabbbc"))
SEVERAL = shows({"a": True, "b": True}, {"a": False, "b": True}, {"a": True, "b": None}, {"b": False})


def test_classes_that_exclude_each_other_are_told_from_labels_that_do_not() -> None:
    one, many = question_of(told(), EXCLUSIVE), question_of(told(), SEVERAL)
    assert (one.classes, one.multilabel, one.of) == (("a", "b", "c"), False, "labels")
    assert (many.classes, many.multilabel) == (("a", "b"), True)
    assert question_of(told(multilabel=True), EXCLUSIVE).multilabel


def test_some_of_the_classes_that_exclude_each_other_still_do_and_the_others_are_left_out() -> None:
    chosen = question_of(told(labels=["c", "a"]), EXCLUSIVE)
    assert (chosen.classes, chosen.multilabel) == (("c", "a"), False)
    assert [one.name for one in chosen.answered(EXCLUSIVE)] == ["0.png", "1.png", "5.png"]


@pytest.mark.parametrize(("policy", "value"), [("ignored", np.nan), ("present", 1.0), ("absent", 0.0)])
def test_an_uncertain_label_counts_as_it_is_told(policy: str, value: float) -> None:
    question = question_of(told(uncertain=policy), SEVERAL)
    wanted = [[1, 1], [0, 1], [1, value], [np.nan, 0]]
    np.testing.assert_array_equal(question.truth(SEVERAL), np.array(wanted, dtype=np.float32))
    nothing = shows({}, {"b": None})
    assert len(question.answered([*SEVERAL, *nothing])) == (4 if policy == "ignored" else 5)


def test_a_label_that_is_only_ever_uncertain_is_a_class_where_that_counts_as_present() -> None:
    data = shows({"a": True, "b": None}, {"a": False, "b": False})
    assert question_of(told(uncertain="present"), data).classes == ("a", "b")
    assert question_of(told(), data).classes == ("a",)


def test_diagnoses_are_judged_on_a_split_that_lacks_one_of_them_or_has_another() -> None:
    train = [record(f"{name}.png", diagnosis=name) for name in ("nevus", "wart", "eczema")]
    judged = [record(f"{n}.png", diagnosis=name) for n, name in enumerate(("wart", "nevus", "burn", None))]
    question = question_of(told(), train)
    assert (question.of, question.classes) == ("diagnosis", ("eczema", "nevus", "wart"))
    assert [one.name for one in question.answered(judged)] == ["0.png", "1.png"]
    np.testing.assert_array_equal(question.truth(judged)[:2], [[0, 0, 1], [0, 1, 0]])
    malignant = question_of(told(of="malignancy"), [record("a", malignancy="benign"), record("b", malignancy="other")])
    assert malignant.classes == ("benign", "other")


def test_weights_are_those_of_the_library_and_absent_over_present() -> None:
    truth = question_of(told(), EXCLUSIVE).truth(EXCLUSIVE)
    named = truth.argmax(1)
    wanted = compute_class_weight("balanced", classes=np.arange(3), y=named)
    np.testing.assert_allclose(class_weights(truth, multilabel=False), wanted, rtol=1e-6)
    several = question_of(told(), SEVERAL).truth(SEVERAL)
    np.testing.assert_allclose(class_weights(several, multilabel=True), [1 / 2, 1 / 2])
    rare = np.zeros((1000, 1), dtype=np.float32)
    rare[0] = 1
    assert class_weights(rare, multilabel=True).item() == 100


@pytest.mark.parametrize(
    ("settings", "data", "said"),
    [
        ({"labels": ["a", "d"]}, EXCLUSIVE, r"task\.labels: the data has no 'd'; it has a, b, c"),
        ({"labels": ["a", "a"]}, EXCLUSIVE, "a class stands there twice"),
        ({"labels": ["a"]}, EXCLUSIVE, "one class alone, 'a', is nothing to tell apart"),
        ({"multilabel": False}, SEVERAL, "1 training photograph shows several of the classes at once"),
        ({"of": "diagnosis"}, EXCLUSIVE, "task.of=diagnosis: no training photograph states any"),
        ({"labels": ["b"]}, shows({"a": True, "b": False}), "no training photograph shows b"),
        ({}, shows({"a": False, "b": False}), "no training photograph shows a, b"),
        ({}, shows({}, {}), "task.of=diagnosis: no training photograph states any"),
    ],
)
def test_what_cannot_be_learnt_is_refused_in_a_line(settings: dict[str, Any], data: list[Record], said: str) -> None:
    with pytest.raises(UserError, match=said) as refused:
        question_of(told(**settings), data)
    assert "\n" not in str(refused.value)


def test_one_class_alone_is_learnt_against_all_else_where_that_is_asked_for() -> None:
    question = question_of(told(labels=["a"], multilabel=True), EXCLUSIVE)
    assert len(question.answered(EXCLUSIVE)) == len(EXCLUSIVE)
