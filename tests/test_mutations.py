"""The mistakes that `make mutants` makes: each is one, and is where it says."""

import ast

import pytest

from tests.mutants import AREAS, ROOT, drawn, mutants_of
from tests.mutations import in_lua, in_python
from tests.unnoticeable import UNNOTICEABLE

NO_FUNCTIONS: dict[str, list[str]] = {}


def changed(source: str, kinds: dict[str, list[str]] | None = None) -> set[str]:
    """Return the sources that mistakes make of one, without the parentheses they add."""
    found = in_python(source, kinds or NO_FUNCTIONS)
    assert all(one.line == 1 for one in found)
    return {ast.unparse(ast.parse(one.applied(source))) for one in found}


@pytest.mark.parametrize(
    ("source", "mistakes"),
    [
        ("a < b", {"a <= b", "a >= b"}),
        ("a <= b < c", {"a < b < c", "a > b < c", "a <= b <= c", "a <= b >= c"}),
        ("a is None", {"a is not None"}),
        ("a and b", {"a or b", "a", "b"}),
        ("not a", {"a"}),
        ("a - b", {"a + b"}),
        ("a * (b - c)", {"a / (b - c)", "a * (b + c)"}),
        ("f(1)", {"f(2)", "f(0)", "pass"}),
        ("x = True", {"x = False"}),
        ("x = 1e18", set()),
        ("x: int = a", set()),
        ("x.y = a", {"pass"}),
        ("x += a", {"pass"}),
        ("min(a)", {"max(a)", "pass"}),
        ("raise E", {"pass"}),
        ("x = f'{a - b}'", set()),
        ("x = list(zip(a, b, strict=True))", set()),
        ("'a docstring'", set()),
        ("x = a if b else c", {"x = a if not b else c"}),
    ],
)
def test_python(source: str, mistakes: set[str]) -> None:
    """One change each; texts, annotations and docstrings stay."""
    assert changed(source) == mistakes


def test_arguments_of_one_type_are_swapped() -> None:
    """Others a type checker would find, and so it would two of different types."""
    kinds = {"f": ["int", "int", "str"]}
    assert changed("x = f(a, b, c)", kinds) == {"x = f(b, a, c)"}
    assert changed("x = g(a, b, c)", kinds) == set()


def test_nothing_is_returned() -> None:
    """A function that forgets its result is a mistake; one that returns None already is none."""
    (mistake,) = in_python("def f():\n    return a\n", NO_FUNCTIONS)
    assert (mistake.line, mistake.applied("def f():\n    return a\n")) == (
        2, "def f():\n    return None\n",
    )  # fmt: skip
    assert in_python("def f():\n    return None\n", NO_FUNCTIONS) == []
    (other,) = in_python("def f():\n    return False\n", NO_FUNCTIONS)
    assert other.after == "(True)"  # nobody tells None from False


def test_lua() -> None:
    """Line by line; comments and texts stay, what is longer than a byte counts as its bytes."""
    source = "-- → 1 < 2\nlocal a = b == c -- d == 1\n  redis.call('DEL', '1')\n"
    assert {
        (one.line, one.applied(source).splitlines()[one.line - 1]) for one in in_lua(source)
    } == {
        (2, "local a = b ~= c -- d == 1"),
        (3, ""),
    }


def test_every_mistake_is_one_and_parses() -> None:
    """Wherever it is made the text becomes another, and Python is still Python."""
    for area in AREAS:
        found = mutants_of(area, ROOT, "")
        assert len(found) > 100
        for mutant in found[::20]:
            source = (ROOT / mutant.path).read_text("utf-8")
            after = mutant.mutation.applied(source)
            assert after != source
            if mutant.path.suffix == ".py":
                ast.parse(after)


def test_the_sources_and_tests_of_each_area_exist() -> None:
    """A renamed file is noticed here, and not after the first hour."""
    for area in AREAS.values():
        names = {name for tests in area.values() for name in tests}
        assert {name for name in names if not (ROOT / f"tests/test_{name}.py").exists()} == set()
        assert [pattern for pattern in area if not list(ROOT.glob(pattern))] == []


def test_what_nothing_shows_is_still_written() -> None:
    """An excuse whose line is gone, or was changed, goes as well."""
    for path, line, _ in UNNOTICEABLE:
        source = (ROOT / path).read_text("utf-8")
        assert line in {each.strip() for each in source.splitlines()}


def test_a_seed_draws_the_same_again() -> None:
    """As many from each area, whatever their sizes."""
    count = 10 * len(AREAS)
    chosen = drawn(ROOT, count, 1, "")
    assert chosen == drawn(ROOT, count, 1, "") != drawn(ROOT, count, 2, "")
    assert [sum(one.area == area for one in chosen) for area in AREAS] == [10] * len(AREAS)
    assert {str(one.path) for one in drawn(ROOT, 9, 1, "grant.lua")} == {
        "poller/store/lua/grant.lua"
    }
