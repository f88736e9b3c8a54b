"""Files that a person writes, as records: every mistake at once, with its line and what was meant.

file -document-> plain data, lines -decode-> record, or problems -refuse-> one error
"""
