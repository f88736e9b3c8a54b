"""What to do before a save: facts in, one act out. Pure.

Asked again after each act, with what the disk then says. The order is that of what is lost: nothing
by an older checkpoint that a newer one replaces, some downloads by cleaning, safety by the ballast,
and only then the form of this checkpoint.
"""

from gradience.storage.guard.records import Act, Answer, Facts

_TRIES = 2


def next_act(facts: Facts) -> Act:
    """The next act on the way to a save.

    Examples
    --------
    >>> next_act(Facts(whole=Answer.YES, smallest=Answer.YES, reserve=True)).value
    'save'
    >>> next_act(Facts(whole=Answer.NO, smallest=Answer.NO, reserve=True)).value
    'release'
    >>> next_act(Facts(whole=Answer.NO, smallest=Answer.YES)).value
    'smallest'
    """
    if facts.failures < _TRIES and facts.whole is not Answer.NO:
        return Act.SAVE
    if facts.rotatable:
        return Act.ROTATE
    if facts.may_clean:
        return Act.CLEAN
    if facts.reserve:
        return Act.RELEASE
    if facts.smallest is Answer.NO and facts.exact_older:
        return Act.LEAVE
    # With nothing to go back to, even what surely will not fit is worth a try.
    return Act.SMALLEST
