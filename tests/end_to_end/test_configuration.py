"""Snakemake's own ways to give a study: several files, overrides, and what they must not lose."""

DUPLICATE = """
recipe: {epochs: 1, lr: 0.003}
losses: {normalized_softmax: {}}
recipe: {batch_size: 48}
"""
MORE = """
plan: {losses: [second]}
losses: {second: {type: softtriple}}
recipe: &recipe {lr: 0.5}
backbones: {tiny: {recipe: {<<: *recipe}}}
"""


def test_a_key_that_stands_twice_in_one_of_several_files_is_refused(project, tiny):
    project.write(tiny)
    (project.folder / "more.yaml").write_text(DUPLICATE)
    output = project.run("--configfile", "study.yaml", "more.yaml", expect=1)
    assert "more.yaml: the study cannot be run:\n" in output
    assert "  the key `recipe` is on line 2 and on line 4. Remove one of them.\n" in output
    assert "Traceback" not in output


def test_files_anchors_and_overrides_are_merged(project, tiny):
    project.write(tiny)
    (project.folder / "more.yaml").write_text(MORE)
    overrides = ["plan={seeds: [0, 1], controls: []}", "recipe={epochs: 2, weight_decay: 1e-3}"]
    arguments = ["--configfile", "study.yaml", "more.yaml", "--config", *overrides]
    assert project.planned(*arguments)["train"] == 2
    output = project.run("--dry-run", *arguments[:3], "--config", "recipe={lr: yes}", expect=1)
    assert "study.yaml, " in output
    assert "more.yaml, --config: the study cannot be run:" in output
    assert "recipe.lr: found 'yes'. Allowed: a number above 0 and at most 1,000." in output
