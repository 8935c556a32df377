import pickle
import re

from app import errors


def kinds(root: type[errors.BistilError] = errors.BistilError) -> list[type[errors.BistilError]]:
    return [root, *(kind for child in root.__subclasses__() for kind in kinds(child))]


def test_every_kind_has_a_status_a_title_and_a_type_of_its_own() -> None:
    assert all(400 <= kind.status < 600 and kind.title for kind in kinds())
    types = [kind.type for kind in kinds()]
    assert len(set(types)) == len(types)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", name) for name in types)


def test_unknown_choice_lists_the_choices() -> None:
    error = errors.UnknownChoice("task", "nre", ("ner", "pos"))
    assert str(error) == "unknown task 'nre'; choose from: ner, pos"
    assert isinstance(error, errors.ConfigError)


def test_overloaded_carries_its_retry_after() -> None:
    error = errors.Overloaded("full", retry_after_s=3)
    assert (error.retry_after_s, error.extensions) == (3, {"retry_after_seconds": 3})


def test_every_error_reaches_another_process_as_it_is() -> None:
    made = {
        errors.UnknownChoice: errors.UnknownChoice("task", "nre", ("ner", "pos")),
        errors.Overloaded: errors.Overloaded("full", retry_after_s=3),
    }
    for kind in kinds():
        error = made.get(kind) or kind("told", limit=3)
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), vars(again)) == (kind, str(error), vars(error))
