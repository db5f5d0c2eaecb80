import pytest

import toys
from spyhop.models import Replay
from spyhop.recipe import Recipe, RecipeStep, Source, Use
from spyhop.recipe.graph import label, parents, refs
from spyhop.schema import RecipeError


def test_a_recipe_holds_nodes_in_order():
    r = Recipe("toy")
    one = r.add("one", toys.numbers, toys.Numbers())
    two = r.add("two", toys.odd_only, toys.Numbers(), rows=one)
    both = r.add("both", toys.added, toys.Sum(), parts={"one": one, "two": two, "three": one})
    assert [step.name for step in r.steps] == ["one", "two", "both"]
    assert r.step("two") is two and refs(both) == [one, two, one]
    assert parents(both) == [one, two, one] and parents(one) == []


def test_models_lead_to_the_nodes_that_make_them():
    r = Recipe("toy")
    made = r.add("made", toys.folder, toys.Numbers())
    asked = r.add("asked", toys.replies, toys.Numbers(), model=Use(Replay(name="m"), made))
    assert parents(asked) == [made]
    assert label(asked.inputs["model"]) == "m (made)"
    assert label(Use(Replay(name="m"))) == "m" and label(Source("a/b")) == "a/b"


@pytest.mark.parametrize("name", ["", "Two", "a b", "../up", "a/b", ".hidden", "-a", "n" * 300])
def test_odd_names_are_refused(name: str):
    with pytest.raises(RecipeError, match="cannot name a step"):
        Recipe("toy").add(name, toys.numbers, toys.Numbers())
    with pytest.raises(RecipeError, match="cannot name a recipe"):
        Recipe(name)


def test_a_name_is_taken_once():
    r = Recipe("toy")
    r.add("one", toys.numbers, toys.Numbers())
    with pytest.raises(RecipeError, match="recipe 'toy' has two steps named 'one'"):
        r.add("one", toys.folder, toys.Numbers())


def test_wrong_inputs_are_refused():
    r = Recipe("toy")
    one = r.add("one", toys.numbers, toys.Numbers())
    with pytest.raises(RecipeError, match=r"step 'x': .*missing: \['rows'\], unknown: \['row'\]"):
        r.add("x", toys.odd_only, toys.Numbers(), row=one)
    with pytest.raises(RecipeError, match=r"toys\.numbers takes Numbers"):
        r.add("x", toys.numbers, toys.Sum())
    with pytest.raises(RecipeError, match="has no step 'x'; known: one"):
        r.step("x")
    assert [step.name for step in r.steps] == ["one"] and isinstance(one, RecipeStep)


def test_a_part_of_a_recipe_names_its_nodes_with_a_prefix():
    r = Recipe("toy")
    first = r.within("web.").add("left", toys.numbers, toys.Numbers())
    second = r.within("web.").within("far.").add("left", toys.numbers, toys.Numbers())
    assert [step.name for step in r.steps] == ["web.left", "web.far.left"]
    assert r.step("web.left") is first and r.within("web.").steps is r.steps
    with pytest.raises(RecipeError, match=r"two steps named 'web\.left'"):
        r.within("web.").add("left", toys.numbers, toys.Numbers())
    assert second.name == "web.far.left"
