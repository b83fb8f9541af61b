"""Memory for large arrays: used again, but never while anybody looks at it."""

import threading

import numpy as np

from asced_stores.format.memory import empty

SHAPE = (3, 1 << 20)
HALF = np.dtype(np.float16)


def address(array):
    return array.__array_interface__["data"][0]


def test_large_arrays_begin_with_a_page():
    assert address(empty((1 << 16,), HALF)) % 4096 == 0
    assert address(empty(SHAPE, HALF)) % (1 << 21) == 0


def test_memory_is_used_again_once_nothing_refers_to_it():
    first = empty(SHAPE, HALF)
    place = address(first)
    first[...] = 1
    view = first[1:, ::2]
    kept = memoryview(first[2])
    del first
    assert address(empty(SHAPE, HALF)) != place
    del view
    assert address(empty(SHAPE, HALF)) != place
    assert (np.asarray(kept) == 1).all()
    del kept
    places = [address(empty(SHAPE, HALF)) for _ in range(8)]
    assert place in places


def test_arrays_in_use_never_overlap():
    arrays = []
    for number in range(12):
        array = empty(SHAPE, HALF)
        array[...] = number
        arrays.append(array)
    for number, array in enumerate(arrays):
        assert (array == number).all()


def test_threads_have_memory_of_their_own():
    mine = empty(SHAPE, HALF)
    place = address(mine)
    del mine
    seen = []

    def ask():
        array = empty(SHAPE, HALF)
        array[...] = 2
        seen.append(array)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert address(seen[0]) != place
    assert (seen[0] == 2).all()  # also after the thread has ended


def test_what_is_too_large_to_be_kept_is_not():
    large = empty((40, 1 << 20), HALF)
    large[...] = 3
    again = empty((40, 1 << 20), HALF)
    again[...] = 4
    assert (large == 3).all()
