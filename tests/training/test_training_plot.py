"""The picture of a training run."""

from __future__ import annotations

from training.plot import draw, smooth


def test_loss_picture_has_a_curve_for_each_codebook() -> None:
    reports = [
        {"step": n, "text": 1.0, "code0": 5.0 - n / 10, **({"code3": 6.0} if n % 2 else {})} for n in range(1, 9)
    ]
    picture = draw(reports)
    assert picture.count("<polyline") == 2
    assert len(smooth(reports, "code3")) == 4
    assert smooth(reports, "code0")[0] == (1, 4.9)
