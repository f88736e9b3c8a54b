"""Text from files of strangers, made safe to print.

A module, a path or a base model can be named with an escape sequence that clears the screen,
writes into the clipboard, or turns the reading direction. A terminal obeys what is printed, so
what is not printable is shown as its code.
"""

_LONGEST = 4000


def visible(text: str, *, longest: int = _LONGEST) -> str:
    """The text with every unprintable character escaped, and its middle left out when it is long.

    Parameters
    ----------
    text : str
    longest : int
        Characters that are shown; a name of a megabyte would hide the rest of the page.

    Examples
    --------
    >>> visible("q_proj\\x1b[2J"), visible("a" * 100, longest=9)
    ('q_proj\\\\x1b[2J', 'aaa...aaa')
    >>> print(visible("caf\\udce9"))
    caf\\xe9
    """
    if len(text) > longest:
        kept = (longest - 3) // 2
        text = f"{text[:kept]}...{text[-kept:]}"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _code(c) for c in text)


def _code(character: str) -> str:
    byte = ord(character) - 0xDC00  # of a name that is no UTF-8 (PEP 383): shown as in --json
    if 0x80 <= byte <= 0xFF:
        return f"\\x{byte:02x}"
    return character.encode("unicode_escape").decode()
