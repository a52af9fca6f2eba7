import io

from hypothesis import given
from hypothesis import strategies as st

from lmbatch.corpus.boundaries import boundaries, boundary_pattern, next_boundary
from lmbatch.corpus.stream import Window

PATTERN = boundary_pattern(b"id")
PARTS = st.lists(
    st.sampled_from([b'{"id":', b'{ "id" :', b"{", b'"id":', b",", b":", b" \n", b"[", b"x", b'{"i":{"id":1}}'])
)


def one_after_the_other(window, position):
    found = []
    while (at := next_boundary(PATTERN, window, position)) is not None:
        found.append(at)
        position = at + 1
    return found


@given(PARTS, st.integers(0, 40), st.integers(0, 9))
def test_all_boundaries_are_those_found_one_after_the_other(parts, position, base):
    window = Window(io.BytesIO(b"".join(parts)), base)
    window.more()
    assert boundaries(PATTERN, window, position) == one_after_the_other(window, position)


def test_the_value_of_a_field_is_no_boundary():
    window = Window(io.BytesIO(b'[{"id":1},{"a": \n {"id":2}},\n{"id":3}]'))
    window.more()
    assert boundaries(PATTERN, window, 0) == [1, 29]
