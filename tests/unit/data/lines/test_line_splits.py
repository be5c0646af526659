"""An image's split follows from its pixels; a class never loses its only chance of a validation image."""

from cifar_tasks.data.lines.line_splits import held_out, rank

NONE = frozenset[str]()


def drawn(new, earlier=None, trained=None, validated=(), pinned=NONE, seed=0):
    return held_out(new, earlier or {}, trained or {}, set(validated), pinned, seed, 0.1)


def test_about_the_fraction_is_held_out_and_another_seed_holds_out_others():
    new = [(f"{number:032x}", number % 2) for number in range(5000)]
    one, other = drawn(new)[0], drawn(new, seed=1)[0]
    assert 0.08 < sum(one) / len(new) < 0.12
    assert one != other


def test_neither_order_nor_company_changes_the_split_of_an_image():
    new = [(f"{number:032x}", 0) for number in range(500)]
    all_at_once = dict(zip(new, drawn(new)[0], strict=True))
    later = drawn(new[:-250:-1], {digest: "train" for digest, _ in new[:50]})[0]
    assert [all_at_once[each] for each in new[:-250:-1]] == later


def test_equal_images_are_on_the_side_of_the_earlier_one():
    held = next(f"{number:032x}" for number in range(1000) if rank(f"{number:032x}", 0) < 0.1)
    assert drawn([(held, 0), (held, 1)], {held: "train"}, validated={0, 1})[0] == [False, False]
    assert drawn([(held, 0), (held, 1)], {held: "validation"})[0] == [True, True]


def test_a_class_without_a_validation_image_gets_one_that_stays_pinned():
    kept = [f"{number:032x}" for number in range(1000) if rank(f"{number:032x}", 0) > 0.1][:5]
    result, pinned = drawn([(digest, 0) for digest in kept])
    assert sum(result) == 1
    assert drawn([(digest, 0) for digest in kept], pinned=pinned) == (result, pinned)
    assert drawn([(kept[0], 0)]) == ([False], NONE)  # its only image is trained on
    assert drawn([(kept[0], 0)], trained={0: {kept[1]}})[0] == [True]
    assert drawn([(digest, 0) for digest in kept], validated={0})[0] == [False] * 5
