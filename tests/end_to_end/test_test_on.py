"""A run that is tested on another data set waits for the images of both."""


def test_both_data_sets_are_packed_and_a_control_waits_only_for_the_tested_one(project, tiny):
    tiny["datasets"]["letters"] = {"type": "cub200", "test_on": "lfw"}
    project.write(tiny)
    planned = project.planned()
    assert (planned["fetch_archives"], planned["pack_store"]) == (2, 2)
    assert (planned["train"], planned["evaluate"]) == (3, 3)
    planned = project.planned("results/tiny/runs/letters/tiny/control_random/seed0/embeddings.npz")
    assert (planned["fetch_archives"], planned["pack_store"], planned["train"]) == (1, 1, 1)
