"""The name of a row says whether it is trained, a control, or external embeddings."""

import pytest

from dmlbench.study.row_names import (
    control_kind,
    display_name,
    is_control,
    is_external,
    is_trained,
)


@pytest.mark.parametrize(
    ("name", "kind", "shown"),
    [
        ("htl", "trained", "htl"),
        ("pml.CircleLoss", "trained", "pml.CircleLoss"),
        ("control_untrained", "control", "untrained"),
        ("embeddings_clip", "external", "clip (embeddings)"),
    ],
)
def test_a_name_has_one_kind_and_a_name_to_show(name, kind, shown):
    kinds = {
        "trained": is_trained(name),
        "control": is_control(name),
        "external": is_external(name),
    }
    assert [other for other, is_this in kinds.items() if is_this] == [kind]
    assert display_name(name) == shown


def test_only_a_control_has_a_kind_of_control():
    assert control_kind("control_oracle") == "oracle"
    assert control_kind("htl") is control_kind("embeddings_clip") is None
