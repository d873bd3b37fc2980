"""The table of explainers, made from their classes."""

from __future__ import annotations

from clip_xai.xai.explainer import Explainer, explainers

HEADERS = ("`xai=`", "what", "evidence over", "on", "cost for T scores", "same for every text", "linear in the score")
WHERE = {
    frozenset(): "every tower",
    frozenset({"output_gradients"}): "every tower that opens",
    frozenset({"attention"}): "transformers",
    frozenset({"text_trace"}): "text towers",
}


def markdown() -> str:
    """Return one row for each explainer, group by group."""
    rows = [HEADERS, ("---",) * len(HEADERS), *(_row(method) for method in explainers.values())]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _row(method: type[Explainer]) -> tuple[str, ...]:
    where = getattr(method, "where", None) or WHERE[method.needs_of_tower]
    return (
        f"`{method.name}`",
        (method.__doc__ or "").strip().splitlines()[0].rstrip(".:").replace("|", "\\|"),
        {"image": "patches", "text": "words"}.get(method.modality, method.modality),
        where,
        method.cost,
        "" if method.text_dependent else "yes",
        "yes" if method.linear_in_target else "",
    )
