from dmlbench.losses import list_losses
from dmlbench.study.loss_options import options_model
from dmlbench.study.poincare_ball import poincare_ball
from dmlbench.study.study import check_study
from dmlbench.utils.declarations import read_declarations


def test_a_ball_has_the_options_that_the_loss_names():
    for name in list_losses():
        options = options_model(name)().model_dump()
        named = read_declarations(f"dmlbench.losses.{name}").constants.get("POINCARE_BALL")
        ball = poincare_ball(name, options)
        assert (ball is None) == (named is None)
        assert ball is None or ball == (options[named[0]], options[named[1]])
    assert poincare_ball("pml.CircleLoss", {}) is None


def test_every_ball_that_the_bounds_allow_is_one_that_float32_can_rank_in():
    from dmlbench.library.scoring import MOST_RADIUS

    most = read_declarations("dmlbench.losses.hyp").constants["MOST"]
    assert most["curvature"] ** 0.5 * most["radius"] <= MOST_RADIUS


def test_only_trainings_of_the_loss_have_a_ball(tiny):
    tiny["plan"] |= {"losses": ["hyp", "normalized_softmax"], "controls": ["random", "untrained"]}
    balls = {run.loss: run.ball for run in check_study(tiny, "tiny").runs.values()}
    assert balls.pop("hyp") == (0.1, 2.3)
    assert {*balls.values()} == {None}
