"""Guarded patches: shared by all users, gone after the last."""

from raybolt.adapters.patching import patched


class Speaker:
    def speak(self) -> str:
        return "original"


def louder(original):
    return lambda *args: original(*args) + "!"


def test_a_class_is_patched_inside_the_block_only():
    with patched(Speaker, {"speak": louder}):
        assert Speaker().speak() == "original!"
    assert Speaker().speak() == "original"


def test_an_object_is_patched_without_its_class():
    one, other = Speaker(), Speaker()
    with patched(one, {"speak": louder}):
        assert (one.speak(), other.speak()) == ("original!", "original")
    assert vars(one) == {}


def test_blocks_that_overlap_share_one_replacement_until_the_last_leaves():
    first, second = patched(Speaker, {"speak": louder}), patched(Speaker, {"speak": louder})
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert Speaker().speak() == "original!"
    second.__exit__(None, None, None)
    assert Speaker().speak() == "original"


def test_an_inherited_attribute_is_inherited_again_afterwards():
    class Loud(Speaker):
        pass

    with patched(Loud, {"speak": louder}):
        assert "speak" in vars(Loud)
    assert "speak" not in vars(Loud)


def test_the_patch_of_somebody_else_on_top_of_ours_stays():
    with patched(Speaker, {"speak": louder}):
        ours = Speaker.speak
        Speaker.speak = lambda self: ours(self) + "?"
    try:
        assert Speaker().speak() == "original!?"
    finally:
        del Speaker.speak
        Speaker.speak = lambda self: "original"
