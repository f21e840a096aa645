"""Near-duplicates between training images and test images are found before scores need them."""

from dmlbench.planning.pending import find_pending

PATH = "letters/tiny/proxy_anchor/seed0"


def test_near_duplicates_are_found_if_a_pending_scoring_needs_them(finished, stores):
    (file,) = stores.glob("*/near_duplicates/*.json")
    file.write_text(file.read_text().replace('"train": "x"', '"train": "y"'))
    assert find_pending(finished, stores).counts == {}
    finished.files.run(PATH).metrics.unlink()
    (name,) = finished.stores
    assert find_pending(finished, stores).duplicates == [(name, name)]


def test_near_duplicates_of_other_images_or_code_are_found_again(finished, stores, edit_result):
    (file,) = stores.glob("*/near_duplicates/*.json")
    finished.files.run(PATH).metrics.unlink()
    assert find_pending(finished, stores).duplicates == []
    edit_result(file, made_from={"train": "x", "test": "x", "code": "other"})
    assert len(find_pending(finished, stores).duplicates) == 1


def test_near_duplicates_are_not_searched_in_the_store_of_others(finished, stores, monkeypatch):
    (file,) = stores.glob("*/near_duplicates/*.json")
    file.unlink()
    finished.files.run(PATH).metrics.unlink()
    monkeypatch.setattr("os.access", lambda *_: False)
    assert find_pending(finished, stores).duplicates == []


def test_scores_are_computed_again_once_near_duplicates_are_known(finished, stores, edit_result):
    edit_result(finished.files.run(PATH).metrics, near_duplicates=None)
    pending = find_pending(finished, stores)
    assert pending.evaluate == {PATH: ("near-duplicates were found since", "")}
    (file,) = stores.glob("*/near_duplicates/*.json")
    file.unlink()
    assert find_pending(finished, stores).evaluate == {}
