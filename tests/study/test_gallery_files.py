"""Pictures of a group that left the study are removed, and no others."""

from dmlbench.study.gallery_files import remove_other_galleries


def test_only_pictures_of_other_groups_are_removed(tmp_path):
    for group in ("letters/tiny", "letters/resnet.v2", "birds/tiny"):
        folder = tmp_path / "galleries" / group
        folder.mkdir(parents=True)
        for file in (
            folder / "htl.html",
            folder / "made.json",
            folder.parent / f"{folder.name}.html",
        ):
            file.touch()
    remove_other_galleries(tmp_path, {"letters/resnet.v2"})
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {
        "galleries/letters/resnet.v2.html",
        "galleries/letters/resnet.v2/htl.html",
        "galleries/letters/resnet.v2/made.json",
    }


def test_a_study_without_pictures_has_nothing_to_remove(tmp_path):
    remove_other_galleries(tmp_path, set())
