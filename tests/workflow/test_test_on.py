"""A run that is tested on another data set waits for the images of both."""


def test_both_data_sets_are_packed_and_a_control_waits_for_the_test_alone(project, tiny):
    tiny["datasets"]["letters"] = {"type": "cub200", "test_on": "lfw"}
    project.write(tiny)
    planned = project.planned()
    assert (planned["archives"], planned["store"]) == (2, 2)
    assert (planned["train"], planned["evaluate"]) == (3, 3)
    planned = project.planned("results/tiny/runs/letters/tiny/control_random/seed0/embeddings.npz")
    assert (planned["archives"], planned["store"], planned["train"]) == (1, 1, 1)
