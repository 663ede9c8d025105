"""What workers are sent."""

from phalanx import references
from phalanx.clusters import pool, wire


def test_whoever_is_told_later_is_told_the_same():
    """A function of the main script travels with its globals, which may change meanwhile."""
    script = {"__name__": "__main__", "share": 0.9}
    exec("def rule():\n    return share", script)
    told = wire.Packed(script["rule"])
    first = references.loads(wire.pack((1, told)))
    script["share"] = 0.1
    later = references.loads(wire.pack((2, told)))
    assert [(life, part.unpacked()()) for life, part in (first, later)] == [(1, 0.9), (2, 0.9)]


def test_a_pool_is_not_used_again_while_an_answer_is_owed():
    warm = pool.warm_pool()
    (member,) = warm.take(1)
    assert warm.is_sound()
    member.due = 1
    assert not warm.is_sound()
    pool.shutdown()
