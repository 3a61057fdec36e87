from __future__ import annotations

import itertools

import pytest

from mmrobust.cases import MODALITIES, Case, State, missing_cases
from mmrobust.errors import UsageError


def every_case(modalities: tuple[str, ...]) -> list[Case]:
    states = itertools.product(State, repeat=len(modalities))
    return [Case(tuple(zip(modalities, s, strict=True))) for s in states if set(s) != {State.MISSING}]


@pytest.mark.parametrize("modalities", [("image", "text"), ("audio", "image"), ("text",), ("image", "text", "audio")])
def test_a_name_is_that_of_one_case_and_reads_back(modalities: tuple[str, ...]) -> None:
    cases = every_case(modalities)
    assert len({case.name for case in cases}) == len(cases)
    for case in cases:
        assert Case.parse(case.name, modalities) == case


def test_names() -> None:
    names = [case.name for case in every_case(("image", "text"))]
    assert names == [
        "complete",
        "missing-text",
        "noisy-text",
        "missing-image",
        "missing-image+noisy-text",
        "noisy-image",
        "noisy-image+missing-text",
        "noisy-both",
    ]


def test_missing_cases_are_complete_and_one_per_modality() -> None:
    assert [str(case) for case in missing_cases(("audio", "image"))] == ["complete", "missing-audio", "missing-image"]


def test_present_missing_degraded() -> None:
    case = Case.of({"image": State.DEGRADED, "text": State.MISSING})
    assert case.modalities == ("image", "text")
    assert case.present == ("image",)
    assert case.degraded == ("image",)
    assert case.is_missing("text")
    assert not case.is_missing("image")


def test_what_is_missing_by_nature_stays_missing() -> None:
    without_text, without_image = Case.missing(("image", "text"), "text"), Case.missing(("image", "text"), "image")
    assert without_text.within(Case.complete(("image", "text"))) == without_text
    assert without_text.within(without_text) == without_text
    assert without_image.within(without_text) is None
    three = Case.missing(MODALITIES, "image").within(Case.missing(MODALITIES, "text"))
    assert three is not None
    assert three.name == "missing-image+missing-text"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mising-text", "unknown case 'mising-text': did you mean 'missing-text'?"),
        ("missing-audio", "unknown case 'missing-audio'"),
        ("missing", "unknown case 'missing'"),
        ("", "unknown case ''"),
        ("missing-image+missing-text", "nothing present"),
    ],
)
def test_a_name_that_is_none(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("?", r"\?").replace("+", r"\+")):
        Case.parse(name, ("image", "text"))


def test_modalities_may_have_any_name_that_names_of_cases_can_hold() -> None:
    case = Case.parse("missing-frame2+noisy-left_IMU:gap@3", ("image", "frame2", "left_IMU"))
    assert case.present == ("image", "left_IMU") and case.corruption("left_IMU") == ("gap", 3)
    assert Case.parse(case.name, case.modalities) == case
    with pytest.raises(UsageError, match="modality 'both': the word has a meaning of its own; call the modality"):
        Case.complete(("image", "both"))
    for name in ("", "2nd", "left-imu", "a b", "é", "x" * 65):
        with pytest.raises(UsageError, match=f"modality '{name}': a name is a letter, then letters, digits and _"):
            Case.complete(("image", name))


def test_a_case_needs_a_modality() -> None:
    with pytest.raises(UsageError, match="at least one modality"):
        Case(())


def test_a_case_may_name_its_noise_which_no_model_is_told() -> None:
    pair = ("image", "text")
    case = Case.parse("noisy-text:ocr@2+noisy-image:blur@3", pair)
    assert case.name == "noisy-image:blur@3+noisy-text:ocr@2"
    assert (case.corruption("image"), case.corruption("text")) == (("blur", 3), ("ocr", 2))
    assert case.plain == Case.parse("noisy-both", pair) and case.plain.corruption("image") == (None, None)
    assert case.without_noise() == Case.complete(pair)
    assert Case.parse("noisy-image", pair).under(case).name == "noisy-image:blur@3"
    assert Case.missing(pair, "image").under(case) == Case.missing(pair, "image")
    left = case.within(Case.missing(pair, "image"))
    assert left is not None and left.name == "missing-image+noisy-text:ocr@2"
    assert Case.parse("noisy-both@4", pair).corruption("text") == (None, 4)


def test_a_case_names_each_modality_once_and_both_where_there_are_two() -> None:
    with pytest.raises(UsageError, match=r"case 'missing-text\+noisy-text' names text twice"):
        Case.parse("missing-text+noisy-text", ("image", "text"))
    with pytest.raises(UsageError) as raised:
        Case.parse("nosy-both", ("image", "text", "audio"))
    assert "noisy-both" not in str(raised.value)
